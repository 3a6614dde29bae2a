"""DINOv2, with registers and without, and other ViTs of transformers.

Without registers it is a ViT of mmpretrain here. That has no registers, so
with them it is one of timm.
"""

import math
from collections.abc import Mapping

from torch import Tensor

from .. import vit
from ..format import CLASSIFIER, MASK_TOKEN, Format, Told
from ..key_table import Part

TIMM_MODEL = 'backbone.timm_model.'
#: The same token in the three libraries.
REGISTERS = r'(storage_tokens|reg_token|(embeddings\.)?register_tokens)$'
_SCALE = r'(blocks\.0\.ls1\.|encoder\.layer\.0\.layer_scale1\.)'
_CLASS_TOKEN = r'(embeddings\.)?cls_token$'
_POSITIONS = r'(pos_embed|embeddings\.position_embeddings)$'
_LEFT = (
    (r'(head|classifier)\.', CLASSIFIER),
    (r'(embeddings\.)?mask_token', MASK_TOKEN),
)


def _unpacked(
    weights: dict[str, Tensor], source: Mapping[str, Tensor]
) -> Told:
    """Call timm's gated layers by the names that they have elsewhere.

    There, as in a plain layer, they are ``fc1`` and ``fc2``; what the first
    gives is twice as wide as what the second takes.
    """
    first = '.ffn.layers.0.0.weight'
    for name in [n for n in weights if n.endswith(first)]:
        block = name.removesuffix('layers.0.0.weight')
        second = weights.get(f'{block}layers.1.weight')
        if (
            second is None
            or {second.dim(), weights[name].dim()} != {2}
            or len(weights[name]) != 2 * second.shape[1]
        ):
            continue
        for old, new in (('layers.0.0', 'w12'), ('layers.1', 'w3')):
            for what in ('weight', 'bias'):
                if f'{block}{old}.{what}' in weights:
                    value = weights.pop(f'{block}{old}.{what}')
                    weights[f'{block}{new}.{what}'] = value
    return Told()


def _folded(weights: dict[str, Tensor], source: Mapping[str, Tensor]) -> Told:
    """Add the position of the class token to it, as timm has it.

    There the positions are of patches only.
    """
    token, positions = (
        f'{TIMM_MODEL}{name}' for name in ('cls_token', 'pos_embed')
    )
    if {token, positions} <= weights.keys():
        given = weights[positions]
        same = given.shape[:1] + given.shape[2:] == weights[token].shape[1:]
        count = given.shape[1] if given.dim() == 3 and same else 0
        if count > 1 and math.isqrt(count - 1) ** 2 == count - 1:
            weights[token] = weights[token] + given[:, :1]
            weights[positions] = given[:, 1:]
    return Told()


FORMATS = (
    Format(
        name='dinov2',
        title='a VisionTransformer with LayerScale (DINOv2)',
        signs=(_CLASS_TOKEN, _SCALE),
        never=(REGISTERS,),
        parts=(
            Part('', 'backbone.', vit.TIMM),
            Part('', 'backbone.', vit.TIMM, vit.DINOV2_OF_HF),
        ),
        left=_LEFT,
        imagenet=True,
        finish=_unpacked,
        split_qkv=True,
    ),
    Format(
        name='dinov2-registers',
        title='a VisionTransformer with LayerScale and registers (DINOv2)',
        signs=(_CLASS_TOKEN, _SCALE, _POSITIONS, REGISTERS),
        parts=(
            Part('', TIMM_MODEL, vit.REGISTERS),
            Part('', TIMM_MODEL, vit.REGISTERS, vit.DINOV2_OF_HF),
        ),
        left=_LEFT,
        imagenet=True,
        finish=_folded,
        split_qkv=True,
    ),
    Format(
        name='hf-vit',
        title='a ViTModel of transformers (DINO, DeiT)',
        signs=(_CLASS_TOKEN, r'encoder\.layer\.0\.layernorm_before\.'),
        parts=(Part('', 'backbone.', vit.HF),),
        left=(
            (r'pooler\.', 'the pooler, which was not trained with it'),
            *_LEFT,
        ),
        split_qkv=True,
    ),
)
