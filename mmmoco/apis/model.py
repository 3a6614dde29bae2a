import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.config import Config
from mmengine.logging import MMLogger
from torch import nn

from mmmoco.engine import checkpoint_io
from mmmoco.engine.architecture import hold
from mmmoco.engine.checkpoint_io.fitting import WHOLE
from mmmoco.engine.evaluation.preprocessing import tell_teachers
from mmmoco.engine.pretrained import initialize
from mmmoco.feature_model import FeatureModel
from mmmoco.messages import log_info
from mmmoco.models.algorithms import BackboneOnly
from mmmoco.registry import MODELS, in_scope_of
from mmmoco.two_phase import TwoPhaseModel

from .config.files import load_config
from .config.from_checkpoint import config_of
from .image_input import ImageInput


@contextmanager
def _unreported() -> Iterator[None]:
    """Keep mmengine from writing a line for every single parameter."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


@checkpoint_io.guarded
def get_model(
    config: str | Config | None = None, checkpoint: str | None = None
) -> nn.Module:
    """Build a model, with its weights if a checkpoint is given.

    Args:
        config: A config, a path, or a name of ``list_configs()``; None: what
            the checkpoint tells about itself.
        checkpoint: File whose weights must fill the model; it is read without
            running code that it may hold. Of a pre-training model, backbone
            and neck: queue and key encoder may be others.

    Returns:
        The model in eval mode, randomly initialised without a checkpoint.

    Raises:
        FileNotFoundError: If config or checkpoint do not exist.
        ValueError: If neither is given, or the checkpoint alone does not
            tell enough.
        CheckpointError: If keys are missing, unexpected or of wrong shape;
            also of the file of an ``init_cfg``, if no checkpoint is given.

    Examples:
        >>> model = mmmoco.get_model('mocov2_r50_8xb32', 'epoch_200.pth')
        >>> features = model.extract_feat(['a.jpg', 'b.png'])  # 2×2048
    """
    if config is None:
        if checkpoint is None:
            raise ValueError('get_model: give a config or a checkpoint.')
        config = config_of(checkpoint)
    cfg = load_config(config) if isinstance(config, str) else config
    scope = cfg.get('default_scope', 'mmmoco')
    with in_scope_of(cfg):
        model: Any = MODELS.build(cfg.model)
        if checkpoint is None:
            tell_teachers(model)
            with _unreported():
                initialize(model, strict=scope == 'mmmoco')
        else:
            weights = checkpoint_io.read_weights(checkpoint)
            needed: tuple[str, ...] = WHOLE
            if isinstance(model, BackboneOnly):
                needed = ('backbone.',)
            elif isinstance(model, TwoPhaseModel):
                needed = ('backbone.', 'neck.')
            fit = checkpoint_io.load_into(
                model,
                weights,
                checkpoint,
                needed=needed,
                allow_extra=[n for n in weights if not n.startswith(needed)],
            )
            if hasattr(model, 'backbone'):
                hold(checkpoint, model, 'this backbone')
            if fit.stays():
                log_info(f'{checkpoint}: {fit.report()}.')
    if isinstance(model, FeatureModel):
        model.read_images = ImageInput(cfg, checkpoint)
    result: nn.Module = model.eval()
    return result
