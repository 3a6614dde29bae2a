"""The images that an exported network takes, as far as anything tells."""

from typing import Any, NamedTuple

from mmengine.utils import to_2tuple
from torch import nn

from mmmoco.engine.evaluation.preprocessing import preprocessing_of
from mmmoco.models.encoders.fitting import image_channels
from mmmoco.registry import value_at

from .export_backbone import Source

_INTERPOLATIONS = 'nearest', 'bilinear', 'bicubic', 'lanczos', 'box', 'hamming'
#: How evaluations crop, if nothing is told: 224 of 256.
_CROP = 0.875


class Images(NamedTuple):
    """The images that a network takes.

    Attributes:
        channels: Their number.
        size: Height and width.
        mean: By channel, of values from 0 to 1; None: unknown.
        std: By channel, in the same unit.
        interpolation: How they are resized.
        crop: What part of the resized side is kept.
        levels: What of images of other values than 8 bits became 0 and 1.
    """

    channels: int
    size: tuple[int, int]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    interpolation: str
    crop: float
    levels: tuple[float, ...] | None = None

    def in_bytes(self) -> dict[str, list[float]] | None:
        """Return mean and std of values from 0 to 255, if they are known."""
        if self.mean is None or self.std is None:
            return None
        both = {'mean': self.mean, 'std': self.std}
        return {k: [round(255 * x, 4) for x in v] for k, v in both.items()}


def images_of(source: Source, net: nn.Module) -> Images:
    """Return what images a backbone takes, as far as anything tells.

    Raises:
        ValueError: If they are BGR: all that reads the folder gives RGB.
    """
    channels = image_channels(net)
    if channels is None:
        raise ValueError(f'{type(net).__name__} has no convolution.')
    seen = source.seen
    if seen is None:
        seen = preprocessing_of(None)
    if seen.channel_order == 'bgr' and channels == 3:
        raise ValueError(
            f'{source.path} was trained on BGR images, and what loads a '
            'folder gives RGB: use --to mmpretrain.'
        )
    evaluated = preprocessing_of(
        None, value_at(source.cfg, 'knn.query.dataset.pipeline')
    )
    size: Any = (
        getattr(net, 'img_size', None)
        or source.config.get('img_size')
        or evaluated.crop
        or seen.crop
    )
    size = to_2tuple(size or 224)
    crop = _CROP
    if source.cfg is not None and evaluated.value_range is not None:
        side, before = evaluated.crop, evaluated.resize
        crop = min(side) / min(before) if side and before else 1.0
    mean, std = seen.mean, seen.std
    span = seen.value_range or 255.0
    if not (
        mean
        and std
        and len(mean) == len(std) == channels
        and min(std) > 0
        and span > 0
    ):
        mean = std = None
    way = evaluated.interpolation or seen.interpolation
    levels = seen.input_range
    return Images(
        channels,
        (int(size[0]), int(size[-1])),
        mean and tuple(round(value / span, 8) for value in mean),
        std and tuple(round(value / span, 8) for value in std),
        way if way in _INTERPOLATIONS else 'bilinear',
        crop if 0 < crop <= 1 else _CROP,
        levels if isinstance(levels, tuple) else None,
    )
