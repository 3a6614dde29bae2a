"""What a downstream backbone starts from: the one that a checkpoint holds."""

import os
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config
from torch import nn

from mmmoco.apis import cli
from mmmoco.apis.config.from_checkpoint import config_of
from mmmoco.apis.exchange.export_backbone import method_of
from mmmoco.apis.training.transfer import WITHOUT_FILE
from mmmoco.engine import checkpoint_io
from mmmoco.engine.without_memory import build_without_memory
from mmmoco.models.backbones.mocov3_vit import ARCHS
from mmmoco.registry import bare_type

_VITS = ('MoCoV3ViT', 'VisionTransformer')
#: All libraries have it; ours adds an initialisation.
_RESNETS = ('ResNet', 'MoCoV3ResNet')
_BATCH_NORM = (*_RESNETS, *('ResNeXt', 'ResNetV1d', 'SEResNet', 'SEResNeXt'))
_LAYER_NORM = ('ConvNeXt', 'SwinTransformer')
#: What is of the pre-training, or of the new model.
_LEFT_OUT = {
    *('type', 'out_indices', 'out_type', 'final_norm', 'norm_eval'),
    *('img_size', 'frozen_stages', 'zero_init_residual', 'with_cp'),
    *('stop_grad_conv1', 'init_cfg', 'drop_path_rate', 'stem_norm_cfg'),
    'gap_before_final_norm',
}


@dataclass(frozen=True)
class Start:
    """A backbone, and where its weights are.

    Attributes:
        backbone: Its config, as far as a checkpoint decides on it.
        kind: Its class.
        init: Its ``init_cfg``; None: random weights.
        seen: Mean and standard deviation, if a file tells them.
        size: Side of the images that it saw.
        method: That made the file.
    """

    backbone: dict[str, Any]
    kind: str
    init: dict[str, Any] | None
    seen: dict[str, list[float]]
    size: int = 224
    method: str | None = None

    @property
    def is_vit(self) -> bool:
        """Whether it is a plain vision transformer."""
        return self.kind in _VITS

    @property
    def batch_norm(self) -> bool:
        """Whether it is a ResNet: it normalises over the batch."""
        return self.kind in _BATCH_NORM

    def placed(self, **role: Any) -> dict[str, Any]:
        """Return its config in a model.

        Args:
            role: What the model decides on.
        """
        return {**self.backbone, **role, 'init_cfg': self.init}


def read_start(init: str) -> Start:
    """Read a checkpoint, or take a ResNet-50.

    Args:
        init: As for ``--init``.

    Raises:
        FileNotFoundError: If the checkpoint does not exist.
        CheckpointError: If it cannot be read.
        ValueError: If its backbone has no place in these models.
    """
    if init in WITHOUT_FILE:
        place = dict(type='Pretrained', checkpoint='torchvision://resnet50')
        backbone = dict(type='ResNet', depth=50)
        given = place if init == 'supervised' else None
        return Start(backbone, 'ResNet', given, {})
    cli.require_file(init)
    try:
        cfg = config_of(init)
    except ValueError as error:
        raise ValueError(
            f'--init {init}: {error.__cause__ or error} mmmoco import writes '
            'a file that tells it.'
        ) from error
    told = cfg.model.backbone.to_dict()
    kind, channels = bare_type(told), told.get('in_channels', 3)
    if kind not in (*_VITS, *_BATCH_NORM, *_LAYER_NORM) or channels != 3:
        raise ValueError(
            f'--init {init}: its backbone is {kind} for {channels} channels; '
            'configs are written for ResNets, ViTs, ConvNeXt and '
            'SwinTransformer that take three.'
        )
    crops = [x['size'] for x in cfg.eval_pipeline if 'CenterCrop' in x['type']]
    seen = cfg.model.data_preprocessor
    path = os.path.abspath(init)
    return Start(
        _named(told, kind),
        kind,
        dict(type='Pretrained', checkpoint=path, prefix='backbone.'),
        {k: (list(seen[k]) * 3)[:3] for k in ('mean', 'std')},
        max(crops[0]) if crops else 224,
        method_of(checkpoint_io.read(init)),
    )


def _named(told: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return the config of a backbone as these libraries call it."""
    given = {k: v for k, v in told.items() if k not in _LEFT_OUT}
    if kind in _BATCH_NORM:
        given.pop('norm_cfg', None)
    name = 'ResNet' if kind in _RESNETS else f'mmpretrain.{kind}'
    if kind == 'SwinTransformer':
        given['pad_small_map'] = True  # Images are of any size.
    if kind == 'MoCoV3ViT':
        name = 'mmpretrain.VisionTransformer'
        arch = given.get('arch', 'base')
        if isinstance(arch, str):
            # In mmpretrain these names mean other shapes.
            given['arch'] = dict(ARCHS[arch])
        if given['arch'].get('conv_stem'):
            name = 'mmmoco.MoCoV3ViT'
            given['stop_grad_conv1'] = False
    return dict(type=name, **given)


def built(backbone: dict[str, Any], scope: str) -> nn.Module:
    """Build a backbone without memory: its shapes tell the rest."""
    model = {k: v for k, v in backbone.items() if k != 'init_cfg'}
    cfg = Config(dict(model=model, default_scope=scope))
    module = build_without_memory(cfg)
    module.eval()  # Some of mmpretrain's return nothing here.
    return module
