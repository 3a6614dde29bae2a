"""What a network looks like, read off its tensors.

A checkpoint without a config still tells widths, depths and layers by the
shapes of its tensors. What shapes do not tell is the number of heads of a
transformer: it is taken from the published models of that width.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from .positions import are_fixed, grid_side

Weights = Mapping[str, Tensor]

_DEPTHS: dict[tuple[bool, tuple[int, ...]], int] = {
    (False, (2, 2, 2, 2)): 18,
    (False, (3, 4, 6, 3)): 34,
    (True, (3, 4, 6, 3)): 50,
    (True, (3, 4, 23, 3)): 101,
    (True, (3, 8, 36, 3)): 152,
}
_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 1536: 24}
_MOCOV3_HEADS = {**_HEADS, 384: 12}
_DINOV3_HEADS = {**_HEADS, 1280: 20, 4096: 32}
#: What timm calls them; its other arguments say all else.
_REGISTERS = {768: 'base', 1024: 'large', 1536: 'giant'}
_DINOV3 = {768: 'base', 1024: 'large', 1280: 'huge_plus', 4096: '7b'}


def below(weights: Weights, prefix: str) -> dict[str, Tensor]:
    """Return the weights of one module, by their names inside it.

    Args:
        weights: Tensors by name.
        prefix: Of the module, with its dot.
    """
    return {
        name.removeprefix(prefix): value
        for name, value in weights.items()
        if name.startswith(prefix)
    }


def family_of(backbone: Weights) -> str:
    """Return ``'vit'``, ``'resnet'`` or ``'other'``."""
    if any(name.startswith('patch_embed.') for name in backbone):
        return 'vit'
    return 'resnet' if 'layer1.0.conv1.weight' in backbone else 'other'


def called(names: Iterable[str]) -> str | None:
    """Return what one calls the network whose tensors have these names.

    Args:
        names: Of a backbone, or of what has one.

    Returns:
        ``'ResNet-50'``, ``'ViT of 12 blocks'``; None: it is not known.
    """
    names = [*names]
    for sign in ('layer1.0.conv1.weight', 'layers.0.ln1.weight'):
        prefix = next((n[: -len(sign)] for n in names if n.endswith(sign)), 0)
        if not isinstance(prefix, str):
            continue
        own = dict.fromkeys(
            n.removeprefix(prefix) for n in names if n.startswith(prefix)
        )
        if sign.startswith('layers'):
            return f'ViT of {_count(own, "layers.")} blocks'
        bottleneck = 'layer1.0.conv3.weight' in own
        blocks = tuple(_count(own, f'layer{stage}.') for stage in range(1, 5))
        depth = _DEPTHS.get((bottleneck, blocks))
        return f'ResNet-{depth}' if depth else None
    return None


def has_conv_stem(backbone: Weights) -> bool:
    """Tell whether a ViT begins with a stem of convolutions."""
    return 'patch_embed.projection.0.weight' in backbone


def describe_backbone(
    backbone: Weights, num_heads: int | None = None
) -> dict[str, Any]:
    """Return a config that builds the backbone of these weights.

    Args:
        backbone: Tensors by our names, without ``backbone.``.
        num_heads: Of a transformer; None: as in the published model of that
            width (384 channels: 12 with the fixed positions of MoCo v3,
            else 6).

    Raises:
        ValueError: If the network is none of those that shapes identify.
    """
    family = family_of(backbone)
    try:
        if family == 'vit':
            return _describe_vit(backbone, num_heads)
        if family == 'resnet':
            return _describe_resnet(backbone)
        if 'timm_model.reg_token' in backbone:
            inner = below(backbone, 'timm_model.')
            return _describe_registers(inner, num_heads)
        if 'downsample_layers.0.0.weight' in backbone:
            return _describe_convnext(backbone)
        missing = 'conv1.weight and layer1.*, or patch_embed.* and layers.*'
    except KeyError as error:
        missing = str(error.args[0])
    except (IndexError, TypeError, ZeroDivisionError):
        missing = 'the usual shapes were'
    raise ValueError(
        'The backbone cannot be told from its tensors: '
        f'{missing} not found among its {len(backbone)} keys. Either a part '
        'of it is missing, or it is another network: then give its config '
        'with --config.'
    )


def describe_model(
    weights: Weights, num_heads: int | None = None
) -> dict[str, Any]:
    """Return a model config that these weights fit.

    Temperature and m are in no checkpoint; they are the published ones.

    Args:
        weights: Tensors by our names, with at least backbone and neck.
        num_heads: As for :func:`describe_backbone`.

    Raises:
        ValueError: If shapes do not tell what it is.
    """
    backbone = describe_backbone(below(weights, 'backbone.'), num_heads)
    pool = family_of(below(weights, 'backbone.')) == 'resnet'
    neck = _describe_head(below(weights, 'neck.'), pool)
    if neck['type'].endswith('DenseCLNeck') and not pool:
        backbone['out_type'] = 'featmap'
    model = dict(backbone=backbone, neck=neck)
    for name in ('dictionary', 'dense_dictionary'):
        keys = weights.get(f'{name}.keys')
        if keys is None:
            continue
        model[name] = dict(
            type='Queue', size=keys.shape[1], feat_dim=keys.shape[0]
        )
        for marks, what in (('ids', 'image'), ('groups', 'group')):
            if f'{name}.{marks}' in weights:
                model[name]['exclude'] = what
    predictor = below(weights, 'predictor.')
    if predictor:
        return dict(
            type='MoCoV3',
            **model,
            predictor=_describe_head(predictor, pool=False),
            loss=dict(
                type='InfoNCE',
                temperature=1.0 if pool else 0.2,
                scale_by_2tau=True,
            ),
            m=0.99,
            m_schedule='cosine',
        )
    model.setdefault(
        'dictionary',
        dict(type='Queue', size=65536, feat_dim=neck['out_channels']),
    )
    first = neck['type'] == 'mmpretrain.LinearNeck'
    methods = {'LinearNeck': 'MoCoV1', 'DenseCLNeck': 'DenseCL'}
    return dict(
        type=methods.get(neck['type'].partition('.')[2], 'MoCoV2'),
        **model,
        loss=dict(type='InfoNCE', temperature=0.07 if first else 0.2),
        m=0.999,
    )


def _describe_resnet(weights: Weights) -> dict[str, Any]:
    stem = weights['conv1.weight']
    bottleneck = 'layer1.0.conv3.weight' in weights
    blocks = tuple(_count(weights, f'layer{stage}.') for stage in range(1, 5))
    depth = _DEPTHS.get((bottleneck, blocks))
    if depth is None:
        raise ValueError(
            f'A ResNet of {blocks} '
            f'{"bottleneck" if bottleneck else "basic"} blocks in its stages '
            'is none of the usual depths: a part of it is missing, or it is '
            'another network; then give its config with --config.'
        )
    # A 3×3 stem without pooling is that of small images.
    small = stem.shape[-1] == 3
    config: dict[str, Any] = dict(
        type='mmpretrain.ResNet_CIFAR' if small else 'mmpretrain.ResNet',
        depth=depth,
        norm_cfg=dict(type='BN'),
    )
    if stem.shape[1] != 3:
        config['in_channels'] = stem.shape[1]
    middle = weights['layer1.0.conv2.weight']
    last = weights['layer1.0.conv3.weight'] if bottleneck else middle
    base = len(last) // (4 if bottleneck else 1)
    groups = len(middle) // middle.shape[1]
    if groups > 1:
        config.update(
            type='mmpretrain.ResNeXt',
            groups=groups,
            width_per_group=len(middle) // groups,
        )
    elif len(middle) != base:
        raise ValueError(
            f'A ResNet whose 3×3 convolutions have {len(middle)} channels '
            f'between {len(last)} is no config of mmpretrain.ResNet. Give '
            'its own with --config.'
        )
    if len(stem) != 64:
        config['stem_channels'] = len(stem)
    if base != 64:
        config['base_channels'] = base
    return config


def _describe_vit(weights: Weights, num_heads: int | None) -> dict[str, Any]:
    conv_stem = has_conv_stem(weights)
    stem = 'patch_embed.projection.' + ('0.' if conv_stem else '')
    projection = weights[f'{stem}weight']
    positions = weights['pos_embed']
    fixed = are_fixed(positions)
    width = positions.shape[-1]
    published = _MOCOV3_HEADS if fixed else _HEADS
    heads = _heads(width, num_heads, published)
    gated = 'layers.0.ffn.w3.weight' in weights
    last = 'layers.0.ffn.w3.' if gated else 'layers.0.ffn.layers.1.'
    hidden = weights[f'{last}weight'].shape[1]
    patch = 16 if conv_stem else projection.shape[-1]
    arch: dict[str, Any] = dict(
        embed_dims=width,
        num_layers=_count(weights, 'layers.'),
        num_heads=heads,
        # mmpretrain takes two thirds of it where it is gated.
        feedforward_channels=hidden * 3 // 2 if gated else hidden,
    )
    # Ours keeps the positions as they are, which learned ones need not be.
    ours = fixed or conv_stem
    config: dict[str, Any] = dict(
        type='MoCoV3ViT' if ours else 'mmpretrain.VisionTransformer',
        arch=arch,
        img_size=grid_side(positions) * patch,
        patch_size=patch,
    )
    if conv_stem:
        arch['conv_stem'] = True
    if projection.shape[1] != 3:
        config['in_channels'] = projection.shape[1]
    if 'layers.0.attn.qkv.bias' not in weights:
        config['qkv_bias'] = False
    if 'layers.0.attn.gamma1.weight' in weights:
        config['layer_scale_init_value'] = 1e-5
    if gated:
        config['layer_cfgs'] = dict(ffn_type='swiglu_fused')
    if 'ln1.weight' not in weights:
        config['final_norm'] = False
    return config


def _describe_registers(
    weights: Weights, num_heads: int | None
) -> dict[str, Any]:
    """Return the config of a ViT of timm with registers."""
    projection = weights['patch_embed.proj.weight']
    width, channels, patch = (projection.shape[i] for i in (0, 1, 3))
    last = weights['blocks.0.mlp.fc2.weight'].shape[1]
    arch: dict[str, Any] = dict(
        patch_size=patch, embed_dim=width, depth=_count(weights, 'blocks.')
    )
    registers = weights['reg_token'].shape[1]
    if 'pos_embed' in weights:
        first = len(weights['blocks.0.mlp.fc1.weight'])
        kind = 'giant' if first > last else _REGISTERS.get(width, 'small')
        arch |= dict(
            model_name=f'vit_{kind}_patch14_reg4_dinov2',
            num_heads=_heads(width, num_heads, _HEADS),
            mlp_ratio=mlp_ratio(first, width),
            qkv_bias='blocks.0.attn.qkv.bias' in weights,
            reg_tokens=registers,
            img_size=math.isqrt(weights['pos_embed'].shape[1]) * patch,
            # Positions are interpolated to each image, as DINOv2's are.
            dynamic_img_size=True,
        )
    else:
        arch |= dict(
            model_name=f'vit_{_DINOV3.get(width, "small")}_patch16_dinov3',
            num_heads=_heads(width, num_heads, _DINOV3_HEADS),
            mlp_ratio=mlp_ratio(last, width),
            qkv_bias='blocks.0.attn.q_bias' in weights,
            swiglu_mlp='blocks.0.mlp.fc1_g.weight' in weights,
            swiglu_align_to=1,
            num_reg_tokens=registers,
            global_pool='token',  # timm's default is the mean.
        )
    if channels != 3:
        arch['in_channels'] = channels
    return dict(type='TimmBackbone', model_name=arch.pop('model_name'), **arch)


def _describe_convnext(weights: Weights) -> dict[str, Any]:
    stem = weights['downsample_layers.0.0.weight']
    stages = range(_count(weights, 'downsample_layers.'))
    config: dict[str, Any] = dict(
        type='mmpretrain.ConvNeXt',
        arch=dict(
            depths=[_count(weights, f'stages.{s}.') for s in stages],
            channels=[
                len(weights[f'stages.{s}.0.norm.weight']) for s in stages
            ],
        ),
    )
    if stem.shape[1] != 3:
        config['in_channels'] = stem.shape[1]
    if stem.shape[-1] != 4:
        config['stem_patch_size'] = stem.shape[-1]
    return config


def mlp_ratio(hidden: int, width: int) -> float:
    """Return a ratio from which timm, rounding down, gets the hidden width."""
    ratios = hidden / width, (hidden + 0.5) / width
    return next((r for r in ratios if int(width * r) == hidden), ratios[0])


def _heads(
    width: int, num_heads: int | None, published: Mapping[int, int]
) -> int:
    """Return the number of heads of a ViT.

    Raises:
        ValueError: If it is not known, or does not fit.
    """
    heads = num_heads or published.get(width)
    if heads is None:
        raise ValueError(
            f'The number of heads of a ViT of width {width} is not known, '
            'and no shape tells it. Give --num-heads.'
        )
    if width % heads:
        raise ValueError(f'--num-heads {heads} does not divide {width}.')
    return heads


def _describe_head(weights: Weights, pool: bool) -> dict[str, Any]:
    """Return the config of a projection or predictor."""
    if 'fc.weight' in weights:
        linear = weights['fc.weight']
        return dict(
            type='mmpretrain.LinearNeck',
            in_channels=linear.shape[1],
            out_channels=len(linear),
            gap_dim=2 if pool else 0,
            norm_cfg=None,
        )
    if {'mlp.0.weight', 'mlp.2.weight'} <= weights.keys():
        head: dict[str, Any] = dict(
            type='mmpretrain.MoCoV2Neck',
            in_channels=weights['mlp.0.weight'].shape[1],
            hid_channels=len(weights['mlp.0.weight']),
            out_channels=len(weights['mlp.2.weight']),
        )
        if 'mlp2.2.weight' in weights:
            return head | dict(type='mmpretrain.DenseCLNeck')
        return head | dict(with_avg_pool=pool)
    layers = sum(f'fc{i}.weight' in weights for i in range(8))
    last = layers - 1
    if layers < 2 or f'fc{last}.weight' not in weights:
        raise ValueError(
            'A projection or predictor cannot be told from its tensors: '
            f'{", ".join(list(weights)[:8]) or "none"}. Either a part of it '
            'is missing, or it is another module: then give the config with '
            '--config.'
        )
    return dict(
        type='mmpretrain.NonLinearNeck',
        in_channels=weights['fc0.weight'].shape[1],
        hid_channels=len(weights['fc0.weight']),
        out_channels=len(weights[f'fc{last}.weight']),
        num_layers=layers,
        with_bias='fc0.bias' in weights,
        with_last_bias=f'fc{last}.bias' in weights,
        with_last_bn=f'bn{last}.running_mean' in weights,
        with_last_bn_affine=f'bn{last}.weight' in weights,
        with_avg_pool=pool,
        norm_cfg=dict(type='SyncBN'),
    )


def _count(weights: Mapping[str, Any], prefix: str) -> int:
    """Number of children of a row of modules: the highest index and one."""
    indices = {
        int(index)
        for name in weights
        if name.startswith(prefix)
        and (index := name[len(prefix) :].split('.')[0]).isdecimal()
    }
    count = max(indices, default=-1) + 1
    if count > len(weights):
        raise KeyError(f'{prefix}0')  # Nobody builds what only a name claims.
    return count
