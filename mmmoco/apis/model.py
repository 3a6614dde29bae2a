from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn
from torch.overrides import TorchFunctionMode

from mmmoco.engine import checkpoint_io
from mmmoco.registry import MODELS

from .config import load_config


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
    scope = cfg.get('default_scope', 'mmmoco')
    with (
        DefaultScope.overwrite_default_scope(scope),
        torch.device('meta'),
        _RealLinspace(),
    ):
        model: nn.Module = MODELS.build(cfg.model)
    return model


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
        RuntimeError: If keys are missing, unexpected or of wrong shape.

    Examples:
        >>> model = mmmoco.get_model('mocov2_r50_8xb32', 'epoch_200.pth')
        >>> features = model.extract_feat(images)  # N×2048
    """
    checkpoint_io.install()
    cfg = load_config(config) if isinstance(config, str) else config
    scope = cfg.get('default_scope', 'mmmoco')
    with DefaultScope.overwrite_default_scope(scope):
        model: Any = MODELS.build(cfg.model)
        if checkpoint is None:
            model.init_weights()
        else:
            state = checkpoint_io.state_dict_of(checkpoint_io.read(checkpoint))
            checkpoint_io.load_into(model, state)
    result: nn.Module = model.eval()
    return result
