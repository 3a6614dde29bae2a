"""Weights as the bytes of a file, in the formats that others read."""

import io
import json
import pickle
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mmmoco.messages import library


def encode(
    weights: Mapping[str, Tensor], meta: Mapping[str, Any], suffix: str
) -> bytes:
    """Return the content of a weight file; equal input, equal bytes.

    Args:
        weights: Tensors by name.
        meta: What to tell about them: plain values.
        suffix: ``'.pth'``, ``'.safetensors'``, or ``'.pkl'`` for Detectron2.

    Raises:
        ImportError: If safetensors is wanted and not installed.
        ValueError: If the suffix is none of these.
    """
    # Each tensor with its own memory: a view would save all that it views.
    own = {
        name: value.detach().cpu().contiguous().clone()
        for name, value in weights.items()
    }
    if suffix == '.pth':
        buffer = io.BytesIO()
        torch.save({'meta': dict(meta), 'state_dict': own}, buffer)
        return buffer.getvalue()
    if suffix == '.pkl':
        content = {
            'model': {name: value.numpy() for name, value in own.items()},
            '__author__': 'mmmoco',
            'matching_heuristics': True,
            'meta': dict(meta),
        }
        # The newest that torch.load(weights_only=True) reads too.
        return pickle.dumps(content, protocol=2)
    if suffix == '.safetensors':
        return _safetensors(own, meta)
    raise ValueError(
        f'Weights are written as .pth, .safetensors or .pkl, not {suffix!r}.'
    )


def _safetensors(weights: dict[str, Tensor], meta: Mapping[str, Any]) -> bytes:
    safetensors = library('safetensors.torch', 'Writing .safetensors')
    # Its metadata are text only.
    text = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in meta.items()
    }
    content: bytes = safetensors.save(weights, metadata=text)
    return content
