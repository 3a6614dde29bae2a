"""Models on the meta device: their shapes, and whether weights fit them."""

import math
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mmmoco.engine import checkpoint_io
from mmmoco.messages import clipped
from mmmoco.registry import MODELS, bare_type, in_scope_of


class _RealLinspace(TorchFunctionMode):
    """Backbones read drop-path rates from a linspace: it needs values."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.linspace:
            kwargs.setdefault('device', 'cpu')
        return func(*args, **kwargs)


def build_without_memory(cfg: Config) -> nn.Module:
    """Build a config's model on the meta device: shapes, no storage."""
    with in_scope_of(cfg), torch.device('meta'), _RealLinspace():
        model: nn.Module = MODELS.build(cfg.model)
    return model


def check_complete(
    weights: Mapping[str, Tensor],
    model: Mapping[str, Any],
    scope: str = 'mmmoco',
    allow_missing: Iterable[str] = (),
    source: str = 'The checkpoint',
) -> None:
    """Check that weights fit a network exactly, without its memory.

    Args:
        weights: Tensors by name.
        model: Config of the network, a whole model or a backbone.
        scope: Where types without a scope are looked up.
        allow_missing: Shell patterns of keys that the weights may lack.
        source: Where the weights are from.

    Raises:
        CheckpointError: Keys are missing, unknown or of another shape, or
            the network cannot be built.
    """
    cfg = Config(dict(model=dict(model), default_scope=scope))
    try:
        module = build_without_memory(cfg)
        for name, part in module.named_modules():
            if not 0 <= float(getattr(part, 'eps', 0.0)) < math.inf:
                raise ValueError(f'{name}: eps={part.eps}')
    except Exception as error:  # Given anything, a class may raise anything.
        text = ' '.join(str(error).split()) or type(error).__name__
        raise checkpoint_io.CheckpointError(
            f'{source}: its {bare_type(cfg.model)} cannot be built as told '
            f'({clipped(text, 200)}): give a config that fits with --config.'
        ) from error
    with warnings.catch_warnings():
        # Only shapes are compared: on the meta device nothing is copied.
        warnings.filterwarnings('ignore', message='.*meta.*no-op')
        checkpoint_io.load_into(
            module, weights, source, allow_missing=allow_missing
        )
