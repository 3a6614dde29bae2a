"""One file for each family of layouts; this is the list of all."""

from ..format import Format
from . import (
    detectron2,
    dinov2,
    dinov3,
    lightly,
    mmmoco,
    moco,
    mocov3,
    openmmlab,
    seco,
    seed_pipeline,
    solo_learn,
    timm,
    torchvision,
)

FORMATS: dict[str, Format] = {
    each.name: each
    for module in (
        mmmoco,
        moco,
        mocov3,
        openmmlab,
        seco,
        seed_pipeline,
        lightly,
        solo_learn,
        torchvision,
        timm,
        dinov2,
        dinov3,
        detectron2,
    )
    for each in module.FORMATS
}
