"""From our names to those of another library, the backbone alone."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

from . import resnet, vit
from .anatomy import family_of, has_conv_stem
from .key_table import SAME, KeyTable


class Target(NamedTuple):
    """Where a backbone can go.

    Attributes:
        suffix: Of the file.
        resnet: Names of a ResNet there, None if there is none.
        vit: Names of a ViT there.
        other: Names of any other backbone.
        prefix: In front of all names; a ViT of mmseg has none.
        conv_stem: Whether a ViT with a stem of convolutions can be loaded.
    """

    suffix: str
    resnet: KeyTable | None
    vit: KeyTable | None = None
    other: KeyTable | None = None
    prefix: str = ''
    conv_stem: bool = False


OPENMMLAB = Target('.pth', SAME, SAME, SAME, 'backbone.', conv_stem=True)

TARGETS: dict[str, Target] = {
    'mmpretrain': OPENMMLAB,
    'mmdet': OPENMMLAB,
    'mmseg': OPENMMLAB._replace(vit=vit.MMSEG, conv_stem=False),
    'torchvision': Target('.pth', resnet.TORCHVISION, vit.TORCHVISION),
    'timm': Target('.pth', resnet.TORCHVISION, vit.TIMM),
    'detectron2': Target('.pkl', resnet.DETECTRON2),
    'safetensors': OPENMMLAB._replace(suffix='.safetensors'),
}


def rename_backbone(
    backbone: Mapping[str, Tensor], target: str
) -> dict[str, Tensor]:
    """Give the weights of a backbone the names that a library uses.

    Args:
        backbone: Tensors by our names, without ``backbone.``.
        target: A key of ``TARGETS``.

    Raises:
        ValueError: If the library has no such backbone.
    """
    place = TARGETS[target]
    family = family_of(backbone)
    table: KeyTable | None = getattr(place, family)
    kind = {'vit': 'ViT', 'resnet': 'ResNet'}.get(family, 'such backbone')
    if family == 'vit' and has_conv_stem(backbone) and not place.conv_stem:
        table, kind = None, 'ViT with a convolutional stem'
    if table is None:
        raise ValueError(
            f'--to {target}: there is no {kind} whose names are known there. '
            'Use --to mmpretrain, mmdet or safetensors.'
        )
    theirs = {name: table.to_theirs(name) for name in backbone}
    unknown = [name for name, renamed in theirs.items() if renamed is None]
    if unknown:
        raise ValueError(
            f'--to {target}: {len(unknown)} tensors have no counterpart in '
            f'its {kind}: {", ".join(unknown[:5])}. Use --to mmpretrain or '
            'safetensors.'
        )
    prefix = '' if family == 'vit' and table is vit.MMSEG else place.prefix
    return {f'{prefix}{theirs[name]}': v for name, v in backbone.items()}
