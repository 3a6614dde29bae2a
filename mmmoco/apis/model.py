import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mmmoco.engine import checkpoint_io
from mmmoco.engine.pretrained import initialize
from mmmoco.registry import MODELS, in_scope_of

from .config.files import load_config


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
        CheckpointError: Keys are missing, unknown or of another shape.
    """
    cfg = Config(dict(model=dict(model), default_scope=scope))
    module = build_without_memory(cfg)
    with warnings.catch_warnings():
        # Only shapes are compared: on the meta device nothing is copied.
        warnings.filterwarnings('ignore', message='.*meta.*no-op')
        checkpoint_io.load_into(
            module, weights, source, allow_missing=allow_missing
        )


@checkpoint_io.guarded
def get_model(
    config: str | Config, checkpoint: str | None = None
) -> nn.Module:
    """Build a model, with its weights if a checkpoint is given.

    Args:
        config: A config, a path, or a name of ``list_configs()``.
        checkpoint: File whose weights must fit the model exactly; it is read
            without running code that it may hold.

    Returns:
        The model in eval mode, randomly initialised without a checkpoint.

    Raises:
        FileNotFoundError: If config or checkpoint do not exist.
        CheckpointError: If keys are missing, unexpected or of wrong shape;
            also of the file of an ``init_cfg``, if no checkpoint is given.

    Examples:
        >>> model = mmmoco.get_model('mocov2_r50_8xb32', 'epoch_200.pth')
        >>> features = model.extract_feat(images)  # N×2048
    """
    cfg = load_config(config) if isinstance(config, str) else config
    scope = cfg.get('default_scope', 'mmmoco')
    with in_scope_of(cfg):
        model: Any = MODELS.build(cfg.model)
        if checkpoint is None:
            initialize(model, strict=scope == 'mmmoco')
        else:
            weights = checkpoint_io.read_weights(checkpoint)
            checkpoint_io.load_into(model, weights, checkpoint)
    result: nn.Module = model.eval()
    return result
