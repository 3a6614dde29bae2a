from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor


def flattened(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """Bring the modules of a checkpoint into one ``state_dict``.

    Most files hold one; some keep every module as a dictionary of its own at
    the top (``teacher``, ``encoder_q``, …), whose names then become prefixes.
    NumPy arrays become tensors. Optimizers, schedulers and counters are left
    out: they hold more than tensors.

    Args:
        checkpoint: What a file holds.

    Returns:
        The checkpoint itself where its weights stand together already, else
        ``{'state_dict': …}``.
    """
    for name in ('state_dict', 'model'):
        if isinstance(checkpoint.get(name), Mapping):
            return {**checkpoint, name: _tensors(checkpoint[name])}
    modules = {
        name: _tensors(value)
        for name, value in checkpoint.items()
        if isinstance(value, Mapping) and _holds_only_arrays(value)
    }
    if not modules:
        return _tensors(checkpoint)
    flat: dict[str, Any] = {
        name: value
        for name, value in _tensors(checkpoint).items()
        if isinstance(value, Tensor)
    }
    for module, weights in modules.items():
        for name, value in weights.items():
            flat[f'{module}.{name.removeprefix("module.")}'] = value
    return {'state_dict': flat}


def _holds_only_arrays(mapping: Mapping[str, Any]) -> bool:
    return bool(mapping) and all(
        isinstance(value, Tensor | np.ndarray) for value in mapping.values()
    )


def _tensors(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
    if not any(isinstance(v, np.ndarray) for v in mapping.values()):
        return mapping  # with the attributes that a state dict carries
    return {
        name: torch.from_numpy(value)
        if isinstance(value, np.ndarray)
        else value
        for name, value in mapping.items()
    }
