"""What may be built from the words of a file: parts of closed lists.

A checkpoint comes from anybody, and a ``type`` is any name that Python can
import. So only networks and layers of these lists are built of what a file
says, from numbers and short names; initialisation, paths and URLs are not.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from mmmoco.messages import shortened

#: Networks of ours, and of mmpretrain, and the layers that they are made of.
BACKBONES = {
    **dict.fromkeys(
        ('MoCoV3ResNet', 'MoCoV3ViT', 'PlainConvNet', 'TimmBackbone'), 'mmmoco'
    ),
    **dict.fromkeys(
        (
            *('ResNet', 'ResNeXt', 'ResNet_CIFAR', 'ResNetV1d', 'SEResNet'),
            *('SEResNeXt', 'VisionTransformer', 'SwinTransformer'),
            *('ConvNeXt', 'RegNet', 'HRNet', 'DenseNet', 'VGG'),
            *('MobileNetV2', 'MobileNetV3', 'ShuffleNetV2', 'EfficientNet'),
            'TIMMBackbone',
        ),
        'mmpretrain',
    ),
}
LAYERS = {
    *('BN', 'BN1d', 'BN2d', 'SyncBN', 'SplitBN', 'GN', 'LN', 'LN2d'),
    *('ReLU', 'ReLU6', 'GELU', 'HSwish', 'Swish', 'SiLU'),
}
#: What a whole pre-training model has beside its backbone.
METHODS = {
    **dict.fromkeys(
        ('MoCoV1', 'MoCoV2', 'MoCoV3', 'DenseCL', 'MMC'), 'mmmoco'
    ),
    **dict.fromkeys(('Queue', 'InBatch', 'MemoryBank', 'InfoNCE'), 'mmmoco'),
    'HardNegatives': 'mmmoco',
    **dict.fromkeys(
        ('ReconstructionHead', 'PatchDistillationHead', 'CLSContrastHead'),
        'mmmoco',
    ),
    **dict.fromkeys(
        ('LinearNeck', 'NonLinearNeck', 'MoCoV2Neck', 'DenseCLNeck'),
        'mmpretrain',
    ),
}
#: timm reads files and asks servers for other arguments than these.
_OF_TIMM = {
    *('type', 'model_name', 'in_channels', 'features_only', 'img_size'),
    *('out_indices', 'drop_path_rate', 'patch_size', 'out_type'),
    *('embed_dim', 'depth', 'num_heads', 'mlp_ratio', 'qkv_bias'),
    *('reg_tokens', 'num_reg_tokens', 'swiglu_mlp', 'swiglu_align_to'),
    *('dynamic_img_size', 'global_pool'),
}
#: Left out wherever they stand: where weights, or a first value, come from.
_LEFT_OUT = ('init_cfg', 'pretrained', 'checkpoint', 'checkpoint_path')
_NAME = re.compile(r'[A-Za-z0-9_+-]{1,64}')
_DOTTED = re.compile(r'[A-Za-z0-9_+-]{1,64}(\.[A-Za-z0-9_+-]{1,64})?')
#: So often a layer may be repeated, and so large any number may be.
_MOST_LAYERS, _MOST = 1024, 1 << 31
_COUNTS = re.compile('depth|layers|blocks|stages|convs|branches|modules')


class RefusedError(ValueError):
    """What is not built, or taken, from the words of a file."""


def plain(
    node: Any,
    place: str,
    known: Mapping[str, str] | None = None,
    outermost: Mapping[str, str] | None = None,
) -> Any:
    """Return a part of a config, if all of it may be built.

    Args:
        node: From the words of a file.
        place: Where it stands.
        known: What may be built beside layers, and the scope of each.
        outermost: What the node itself must be; default: the same, or no
            part at all.

    Raises:
        RefusedError: If it holds anything else.
    """
    known = known or {}
    if isinstance(node, list | tuple):
        return [plain(v, f'{place}[{i}]', known) for i, v in enumerate(node)]
    if not isinstance(node, Mapping):
        if not _allowed(node, place.rpartition('.')[2]):
            raise RefusedError(
                f'it says {place}={shortened(node)}, which is not taken from '
                'a file.'
            )
        return node
    kept = {k: v for k, v in node.items() if k not in _LEFT_OUT}
    for name in kept:
        odd = not isinstance(name, str) or not _NAME.fullmatch(name)
        if odd or name.startswith('_') or name == 'self':
            raise RefusedError(f'it has odd names in {place}.')
    kind = kept.pop('type', None)
    parts = {k: plain(v, f'{place}.{k}', known) for k, v in kept.items()}
    if kind is None and not outermost:
        return parts
    allowed = outermost or known
    scope, _, name = str(kind).rpartition('.')
    in_scope = scope in {*allowed.values(), ''}
    if in_scope and name in allowed:
        kind = f'{allowed[name]}.{name}'
    elif outermost or not in_scope or name not in LAYERS:
        raise RefusedError(
            f'it says {place}.type={shortened(kind)}, which is not built from '
            'what a file says.'
        )
    if name.lower() == 'timmbackbone' and not set(kept) <= _OF_TIMM:
        raise RefusedError(f'it gives {place} more than {sorted(_OF_TIMM)}.')
    return {'type': kind, **parts}


def _allowed(value: Any, name: str) -> bool:
    if isinstance(value, str):
        pattern = _DOTTED if name == 'model_name' else _NAME
        return pattern.fullmatch(value) is not None
    if isinstance(value, int | float):
        most = _MOST_LAYERS if _COUNTS.search(name) else _MOST
        return math.isfinite(value) and abs(value) <= most
    return value is None
