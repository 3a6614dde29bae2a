"""DINOv3: ViTs, which are timm's here, and ConvNeXts, mmpretrain's."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .. import convnext, vit
from ..format import CLASSIFIER, MASK_TOKEN, Format, Told
from ..key_table import Part
from ..preprocessing import SAT493M
from .dinov2 import REGISTERS, TIMM_MODEL

LICENSE = 'dinov3-license'
_LOCAL_NORM = 'local_cls_norm.weight'
_PERIODS = 'rope_embed.periods'
_WIDTHS = 1024, 4096  # Of those that saw satellite images.


def _finish_vit(
    weights: dict[str, Tensor],
    source: Mapping[str, Tensor],
    satellite: bool = False,
) -> Told:
    """Bring tensors to timm's, and see that it computes the same.

    Args:
        weights: Tensors by our names, changed in place.
        source: Tensors of the file.
        satellite: The images were those of SAT-493M.

    Raises:
        ValueError: If it would compute something else.
    """
    _split_biases(weights, source)
    for name in list(weights):
        first, dot, what = name.partition('.mlp.fc1.')
        if dot and f'{first}.mlp.fc1_g.{what}' in weights:
            weights[f'{first}.mlp.fc1_x.{what}'] = weights.pop(name)
    token = weights.get(f'{TIMM_MODEL}cls_token')
    width = 0 if token is None else token.shape[-1]
    seen: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    # Of the ViT-Ls only that one has this norm; in 7B both have it.
    if satellite or (width == 1024 and _LOCAL_NORM in source):
        seen = SAT493M
    elif width in _WIDTHS and (
        width == 4096 or 'storage_tokens' not in source
    ):
        notes = (
            'No tensor tells whether it saw photographs (LVD-1689M) or '
            'satellite images (SAT-493M); the former was assumed. For the '
            'latter give --from dinov3-sat.',
        )
    return Told(notes, seen, _heads(source.get(_PERIODS), width))


def _split_biases(
    weights: dict[str, Tensor], source: Mapping[str, Tensor]
) -> None:
    """Mask the biases; the keys have none, and timm no place for one.

    Where the file has none at all they are zero, as timm's are that leave
    them out: one network fits all files.

    Raises:
        ValueError: If they do not fit.
    """
    end = '.attn.qkv.weight'
    stems = [n.removesuffix('qkv.weight') for n in weights if n.endswith(end)]
    names = ('qkv.bias', 'q_bias', 'v_bias')
    without = not any(f'{s}{name}' in weights for s in stems for name in names)
    for stem in stems:
        bias = weights.pop(f'{stem}qkv.bias', None)
        if without:
            matrix = weights[f'{stem}qkv.weight']
            rows = matrix.shape[:1].numel()
            bias = torch.zeros(rows, dtype=matrix.dtype)
        if bias is None:
            continue
        theirs = f'{stem.removeprefix(TIMM_MODEL)}qkv.bias'
        mask = source.get(f'{theirs}_mask', torch.ones(bias.shape))
        if bias.dim() != 1 or len(bias) % 3 or mask.shape != bias.shape:
            raise ValueError(
                f'{theirs} {tuple(bias.shape)} and its mask '
                f'{tuple(mask.shape)} are not those of query, key and value.'
            )
        q, k, v = (bias * mask.to(bias)).view(3, -1)
        if not bool((k == 0).all()):
            raise ValueError(
                f'{theirs}: the part of the keys is not zero, as it is in '
                'DINOv3: timm has no such network.'
            )
        weights[f'{stem}q_bias'], weights[f'{stem}v_bias'] = q, v


def _heads(periods: Tensor | None, width: int) -> int | None:
    """Return the number of heads that the periods of positions tell.

    Raises:
        ValueError: If they are others than timm's.
    """
    if periods is None:
        return None
    count = periods.numel()
    ours = 100 ** (torch.arange(count) / count)
    # They are stored with eight bits.
    if periods.shape != ours.shape or not torch.allclose(
        periods.float(), ours, rtol=0.01
    ):
        raise ValueError(
            f'{_PERIODS} are not those of DINOv3, powers of 100: timm has no '
            'such network.'
        )
    return width // (4 * count) if count else None


def _finish_convnext(
    weights: dict[str, Tensor], source: Mapping[str, Tensor]
) -> Told:
    """Make linear layers of 1×1 convolutions; compare the norms.

    Raises:
        ValueError: If the last norm differs from its copy.
    """
    for name, value in weights.items():
        if '.pointwise_conv' in name and value.dim() == 4:
            weights[name] = value.flatten(1)
    for name, value in source.items():
        if name.startswith('norms.3.'):
            twin = source.get(name.replace('norms.3.', 'norm.'))
            if twin is None or not torch.equal(twin, value):
                raise ValueError(
                    f'{name} should be equal to {name.replace("s.3", "")}: '
                    'which of them was trained cannot be told.'
                )
    if 'stem.0.weight' in source and 'head.fc.weight' not in source:
        return Told(
            (
                'No tensor tells whether DINOv3 is its origin, whose licence '
                'and preprocessing are known: then give --from '
                'dinov3-convnext.',
            )
        )
    return Told()


_VIT = Format(
    name='dinov3',
    title='a VisionTransformer of DINOv3',
    signs=(
        r'(embeddings\.)?cls_token$',
        REGISTERS,
        r'(blocks\.0\.(ls1\.gamma|gamma_1)'
        r'|(model\.)?layer\.0\.layer_scale1\.)',
    ),
    never=(r'(pos_embed|embeddings\.position_embeddings)$',),
    parts=(
        Part('', TIMM_MODEL, vit.DINOV3),
        Part('', TIMM_MODEL, vit.DINOV3_OF_HF),
        Part('model.', TIMM_MODEL, vit.DINOV3_OF_HF),
    ),
    left=(
        (r'(embeddings\.)?mask_token', MASK_TOKEN),
        (r'blocks\.\d+\.attn\.qkv\.bias_mask', 'applied to the biases'),
        (r'rope_embed\.periods', 'the same for all, computed anew'),
        (r'local_cls_norm\.', 'the norm of local crops, for training only'),
    ),
    imagenet=True,
    finish=_finish_vit,
    split_qkv=True,
    license=LICENSE,
)

_CONVNEXT = Format(
    name='convnext',
    title='a ConvNeXt',
    signs=(
        r'(stem\.0\.|downsample_layers\.0\.0\.)',
        r'stages\.0\.(blocks\.)?0\.(conv_dw|dwconv)\.',
    ),
    never=(r'norms\.3\.',),
    parts=(
        Part('', 'backbone.', convnext.ORIGINAL),
        Part('', 'backbone.', convnext.TIMM),
    ),
    left=((r'head\.', CLASSIFIER),),
    finish=_finish_convnext,
)

FORMATS = (
    _VIT,
    _VIT._replace(
        name='dinov3-sat',
        title='a VisionTransformer of DINOv3 for satellite images',
        signs=(r'(?!)',),  # Chosen by --from only.
        finish=partial(_finish_vit, satellite=True),
    ),
    _CONVNEXT,
    _CONVNEXT._replace(
        name='dinov3-convnext',
        title='a ConvNeXt of DINOv3',
        signs=(r'(norms\.3\.|stages\.0\.layers\.0\.depthwise_conv\.)',),
        never=(),
        parts=(
            Part('', 'backbone.', convnext.ORIGINAL),
            Part('', 'backbone.', convnext.TIMM),
            Part('', 'backbone.', convnext.HF),
            Part('model.', 'backbone.', convnext.HF),
        ),
        left=((r'norms\.3\.', 'the last norm once more'),),
        imagenet=True,
        license=LICENSE,
    ),
)
