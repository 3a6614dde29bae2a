from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmmoco.private_names import keep_versions

#: What torch puts into the path of a module that it wraps: torch.compile,
#: fully sharded training, recomputed activations.
WRAPPERS = frozenset(
    {'_orig_mod', '_fsdp_wrapped_module', '_checkpoint_wrapped_module'}
)


def without_wrappers(name: str) -> str:
    """Return the name of a tensor as it was before anything was wrapped.

    The marks of wrappers go wherever they stand; ``module``, which a network
    may call a part of its own, goes at the beginning only.
    """
    parts = [part for part in name.split('.') if part not in WRAPPERS]
    while len(parts) > 1 and parts[0] == 'module':
        del parts[0]
    return '.'.join(parts)


def flattened(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """Bring the modules of a checkpoint into one ``state_dict``.

    Most files hold one; some keep every module as a dictionary of its own at
    the top (``teacher``, ``encoder_q``, …), whose names then become prefixes.
    NumPy arrays become tensors. Optimizers, schedulers and counters are left
    out: they hold more than tensors. Names lose the marks of wrappers.

    Args:
        checkpoint: What a file holds.

    Returns:
        The checkpoint itself where its weights stand together already, else
        ``{'state_dict': …}``.

    Raises:
        ValueError: If two tensors have the same name without those marks.
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
            flat[f'{module}.{name}'] = value
    return {'state_dict': flat}


def _holds_only_arrays(mapping: Mapping[str, Any]) -> bool:
    return bool(mapping) and all(
        isinstance(value, Tensor | np.ndarray) for value in mapping.values()
    )


def _tensors(mapping: Mapping[str, Any]) -> Mapping[str, Any]:
    names = [str(name) for name in mapping]
    bare = _unwrapped(names)
    arrays = any(isinstance(v, np.ndarray) for v in mapping.values())
    if not arrays and bare == names:
        return mapping  # with the attributes that a state dict carries
    result: OrderedDict[str, Any] = OrderedDict(
        (
            name,
            torch.from_numpy(value)
            if isinstance(value, np.ndarray)
            else value,
        )
        for name, value in zip(bare, mapping.values(), strict=True)
    )
    keep_versions(mapping, result, without_wrappers)
    return result


def _unwrapped(names: Iterable[str]) -> list[str]:
    seen: dict[str, str] = {}
    for name in names:
        bare = without_wrappers(name)
        if bare in seen:
            raise ValueError(
                f'{seen[bare]} and {name} are the same tensor but for how '
                'its module is wrapped; the file holds two networks.'
            )
        seen[bare] = name
    return list(seen)
