"""What a backbone is called in timm, told by the built network."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from mmpretrain.models.backbones import ResNet, TIMMBackbone, VisionTransformer
from torch import nn

from mmmoco.convert.anatomy import mlp_ratio
from mmmoco.models.backbones import TimmBackbone
from mmmoco.private_names import BatchNorm

#: ViTs by width; all else about them stands in the arguments.
_VITS = {
    192: 'vit_tiny_patch16_224',
    384: 'vit_small_patch16_224',
    768: 'vit_base_patch16_224',
    1024: 'vit_large_patch16_224',
}
_RESNETS = 'ResNet', 'ResNeXt', 'MoCoV3ResNet'
_SMALL_STEM = 'ResNet_CIFAR'
#: Where mmpretrain's wrapper of timm keeps what it wraps.
WRAPPED = 'timm_model.'
#: Its own arguments, and where the first weights came from.
_OF_WRAPPER = {
    *('type', 'model_name', 'in_channels', 'features_only'),
    *('init_cfg', 'pretrained', 'checkpoint_path'),
}


class NoTimmModelError(ValueError):
    """No model of timm computes what a backbone computes."""


class TimmModel(NamedTuple):
    """A model of timm.

    Attributes:
        architecture: Its name there.
        arguments: What it is built with beyond that.
        first_conv: Name of the first convolution, or several.
        classifier: Name of the layer that ours lacks, or several.
        pool: How its features come about.
        fixed_size: Whether it is built for one size of images.
        small_stem: Whether its stem has to be replaced by hand by a 3×3
            convolution without pooling.
        wrapped: Whether it is timm's own, in mmpretrain's wrapper.
    """

    architecture: str
    arguments: dict[str, Any]
    first_conv: Any
    classifier: Any
    pool: str
    fixed_size: bool
    small_stem: bool = False
    wrapped: bool = False


def timm_model(net: nn.Module, config: Mapping[str, Any]) -> TimmModel:
    """Return what computes the same in timm.

    Args:
        net: A backbone; its weights are not looked at.
        config: By which it was built.

    Raises:
        NoTimmModelError: If there is none, and why.
    """
    kind = type(net).__name__
    if isinstance(net, ResNet) and kind in (*_RESNETS, _SMALL_STEM):
        return _resnet(net, kind)
    if isinstance(net, VisionTransformer):
        return _vit(net)
    if isinstance(net, TIMMBackbone | TimmBackbone):
        return _wrapped(net, config)
    raise NoTimmModelError(f'timm is not known to have a {kind}')


def width_of(net: nn.Module) -> int | None:
    """Return how wide the features of a ResNet or a ViT are."""
    inner = getattr(net, 'timm_model', None)
    width = getattr(net, 'embed_dims', getattr(net, 'feat_dim', None))
    width = getattr(inner, 'num_features', width)
    return width if isinstance(width, int) else None


def _resnet(net: Any, kind: str) -> TimmModel:
    _need(
        ('style', net.style, 'pytorch'),
        ('num_stages', net.num_stages, 4),
        ('strides', tuple(net.strides), (1, 2, 2, 2)),
        ('dilations', tuple(net.dilations), (1, 1, 1, 1)),
        ('deep_stem', net.deep_stem, False),
        ('avg_down', net.avg_down, False),
        ('conv_cfg', net.conv_cfg, None),
        ('stem_channels', net.stem_channels, 64),
        ('expansion', net.expansion, 4 if net.depth >= 50 else 1),
        ('the last of out_indices', max(net.out_indices), 3),
    )
    _need_norm(net.norm1, BatchNorm, 1e-5)
    arguments: dict[str, Any] = {}
    base = net.base_channels
    if kind == 'ResNeXt':
        _need(('base_channels of a ResNeXt', base, 64))
        arguments['cardinality'] = net.groups
        arguments['base_width'] = net.width_per_group
    if base != 64:
        arguments['channels'] = [base * 2**stage for stage in range(4)]
    return TimmModel(
        f'resnet{net.depth}',
        arguments,
        first_conv='conv1',
        classifier='fc',
        pool='avg',
        fixed_size=False,
        small_stem=kind == _SMALL_STEM,
    )


def _vit(net: Any) -> TimmModel:
    projection = net.patch_embed.projection
    if not isinstance(projection, nn.Conv2d):
        raise NoTimmModelError('timm has no ViT with a convolutional stem')
    block = net.layers[0]
    _need(
        ('out_type', net.out_type, 'cls_token'),
        ('pre_norm', isinstance(net.pre_norm, nn.Identity), True),
        ('stride of the patches', projection.stride, projection.kernel_size),
        ('padding of the patches', projection.padding, (0, 0)),
        ('the last of out_indices', max(net.out_indices), net.num_layers - 1),
        ('the layers of a block', type(block.ffn).__name__, 'FFN'),
        ('bias of the patches', projection.bias is not None, True),
    )
    activations = {type(m).__name__ for m in block.ffn.modules()} & {
        name for name in vars(nn.modules.activation) if name[0].isupper()
    }
    _need(('activations', activations, {'GELU'}))
    _need_norm(block.ln1, nn.LayerNorm, 1e-6)
    width = net.embed_dims
    hidden = net.arch_settings['feedforward_channels']
    arguments: dict[str, Any] = dict(
        img_size=list(net.img_size),
        patch_size=projection.kernel_size[0],
        embed_dim=width,
        depth=net.num_layers,
        num_heads=block.attn.num_heads,
        mlp_ratio=mlp_ratio(hidden, width),
    )
    if block.attn.qkv.bias is None:
        arguments['qkv_bias'] = False
    if hasattr(block.attn.gamma1, 'weight'):
        arguments['init_values'] = 1e-5
    if not net.final_norm:
        arguments['final_norm'] = False
    return TimmModel(
        _VITS.get(width, _VITS[384]),
        arguments,
        first_conv='patch_embed.proj',
        classifier='head',
        pool='token',
        fixed_size=True,
    )


def _wrapped(net: Any, config: Mapping[str, Any]) -> TimmModel:
    told = getattr(net.timm_model, 'default_cfg', None) or {}
    _need(('features_only', bool(config.get('features_only')), False))
    arguments = {k: v for k, v in config.items() if k not in _OF_WRAPPER}
    for name, value in arguments.items():
        odd = not isinstance(value, bool | int | float)
        if name == 'norm_layer' or (odd and name != 'global_pool'):
            raise NoTimmModelError(
                f'{name} = {value!r} may mean something else in timm'
            )
    pool = ''  # As mmpretrain's wrapper has it: all positions.
    if isinstance(net, TimmBackbone):
        by_token = hasattr(net.timm_model, 'num_prefix_tokens')
        _need(('maps', not by_token, False), ('out_type', net.out_type, None))
        pool = net.timm_model.global_pool
    arguments['global_pool'] = pool
    return TimmModel(
        str(config['model_name']).partition('.')[0],
        arguments,
        first_conv=told.get('first_conv'),
        classifier=told.get('classifier'),
        pool=pool,
        fixed_size=bool(told.get('fixed_input_size')),
        wrapped=True,
    )


def _need(*wanted: tuple[str, Any, Any]) -> None:
    for name, value, needed in wanted:
        if value != needed:
            raise NoTimmModelError(
                f'timm is not known to have {name} = {value!r}'
            )


def _need_norm(norm: nn.Module, kind: type, eps: float) -> None:
    if not isinstance(norm, kind) or getattr(norm, 'eps', None) != eps:
        raise NoTimmModelError(f'timm is not known to have this norm: {norm}')
