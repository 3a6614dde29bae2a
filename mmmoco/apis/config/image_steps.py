"""Transforms by which a model sees the file of a single image."""

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from mmmoco.datasets.transforms.loading import checked_range
from mmmoco.engine.evaluation.preprocessing import (
    Preprocessing,
    preprocessing_of,
    preprocessing_of_training,
)
from mmmoco.registry import bare_type, dicts_in, value_at

from .plain_parts import RefusedError, plain

#: Of a side that a file tells; a batch of larger ones needs gigabytes.
_MOST_PIXELS = 2048
_INTERPOLATIONS = ('nearest', 'bilinear', 'bicubic', 'lanczos', 'box')

Steps = list[dict[str, Any]]


def steps_of(cfg: Config, size: int | None = None) -> Steps:
    """Return transforms by which a config's model sees an image file.

    Those of its k-NN; where that has none (its images are no files), what
    its training tells.

    Args:
        cfg: Config of a training, or one that a checkpoint told.
        size: Side of what the model sees instead.

    Raises:
        ValueError: If size and channels in it do not fit each other.
    """
    steps = value_at(cfg, 'knn.query.dataset.pipeline') or cfg.get(
        'eval_pipeline'
    )
    if steps and size is None:
        return [dict(step) for step in steps]
    told, seen = cfg.to_dict(), preprocessing_of_training(cfg)
    if size is not None:
        told.pop('knn', None)
        seen = seen._replace(crop=(size,), resize=None)
    return told_steps(told, seen, cfg.model.backbone)


def told_steps(
    told: Mapping[str, Any], seen: Preprocessing, backbone: Mapping[str, Any]
) -> Steps:
    """Return transforms of ours; only their numbers are the config's.

    Args:
        told: Config of a training, not trusted.
        seen: How images reached the network.
        backbone: Its config.

    Raises:
        ValueError: If they say nothing that can be done.
    """
    channels: int = backbone.get('in_channels', 3)
    means = len(seen.mean or ())
    if means and means not in (1, channels):
        raise RefusedError(
            f'its backbone takes {channels} channels, and its mean has '
            f'{means}.'
        )
    crop, resize, interpolation = _sizes(told, seen, backbone)
    load: Steps = [dict(type='mmmoco.LoadRGB', **range_of(told))]
    pack = dict(type='mmmoco.PackImage')
    if channels == 3:
        torchvision = 'mmpretrain.torchvision/'
        return [
            *load,
            dict(type='mmmoco.ToPIL'),
            dict(
                type=f'{torchvision}Resize',
                size=resize,
                interpolation=interpolation,
            ),
            dict(type=f'{torchvision}CenterCrop', size=crop),
            pack,
        ]
    # Bands are no picture of PIL's: the largest square in the middle.
    square = dict(
        type='mmmoco.FastRandomResizedCrop',
        size=max(crop),
        scale=[1.0, 1.0],
        ratio=[1.0, 1.0],
    )
    return [*_load_bands(told, channels), square, pack]


def range_of(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``range`` of 16-bit images, if it is told.

    Args:
        told: Config of a training, not trusted.

    Raises:
        ValueError: If it is no range.
    """
    given = [step.get('range') for step in _steps(told, 'LoadRGB')]
    given = [value for value in given if value not in (None, 'auto')]
    if 'input_range' in told:
        given = [told['input_range']]
    if not given:
        return {}
    found = checked_range(given[0])
    return {'range': None if found is None else list(found)}


def _sizes(
    told: Mapping[str, Any], seen: Preprocessing, backbone: Mapping[str, Any]
) -> tuple[list[int], int, str]:
    """Return crop (height, width), edge before it, and interpolation.

    As in the k-NN of the run, else as large as its training's views, else as
    the backbone says.
    """
    steps = value_at(told, 'knn.query.dataset.pipeline')
    own = preprocessing_of({}, steps if isinstance(steps, list) else ())
    side = backbone.get('img_size', 224)
    sides = own.crop or seen.crop or side
    sides = sides if isinstance(sides, list | tuple) else [sides]
    crop = [sides[0], sides[-1]]
    resize = min(crop)
    if own.resize:
        resize = own.resize[0]
    elif not steps:  # Where there are some, whole images are seen.
        resize = round(resize * 256 / 224)
    if not all(
        type(x) is int and 0 < x <= _MOST_PIXELS for x in (*crop, resize)
    ):
        raise RefusedError(f'it says that its images have {crop} pixels.')
    way = own.interpolation or seen.interpolation
    return crop, resize, way if way in _INTERPOLATIONS else 'bilinear'


def _load_bands(told: Mapping[str, Any], channels: int) -> Steps:
    """Return what reads so many bands, and makes bytes of them."""
    load: dict[str, Any] = dict(type='mmmoco.LoadBands')
    for given in _steps(told, 'LoadBands'):
        bands = given.get('bands')
        if isinstance(bands, list | tuple) and len(bands) == channels:
            load['bands'] = plain(bands, 'bands')
        if given.get('order') in ('hwc', 'chw'):
            load['order'] = given['order']
        if isinstance(given.get('nodata'), int | float):
            load['nodata'] = float(given['nodata'])
    scale = [
        dict(
            type='mmmoco.ScaleBands',
            low=plain(given.get('low'), 'ScaleBands.low'),
            high=plain(given.get('high'), 'ScaleBands.high'),
        )
        for given in _steps(told, 'ScaleBands')
    ]
    return [load, *scale[:1]]


def _steps(told: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """Return the transforms of the training images that have a name."""
    steps = dicts_in(told.get('train_dataloader'))
    return [step for step in steps if bare_type(step) == name]
