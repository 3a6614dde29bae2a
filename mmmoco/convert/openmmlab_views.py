"""Views of mmpretrain and mmselfsup, as ours.

Both sides draw the same distributions; OpenMMLab's transforms work on BGR
arrays, ours on RGB.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmmoco.registry import bare_type

from .fields import Fields

Transform = dict[str, Any]

#: Luminance for BGR, as torchvision computes it for RGB.
_GREY = (0.114, 0.587, 0.2989)
_STRAIGHT = ('LoadImageFromFile', 'PackInputs', 'PackSelfSupInputs')


def convert_pipeline(
    pipeline: Sequence[Mapping[str, Any]], names: tuple[str, str]
) -> tuple[dict[str, list[Transform]], dict[str, Any]]:
    """Return the views of a pre-training pipeline by name.

    Args:
        pipeline: Of the training set: load, ``MultiView``, pack.
        names: What the two views are called here.

    Returns:
        The transforms of each view, and the fields that were not understood,
        by their path.

    Raises:
        ValueError: If it has no ``MultiView`` of two views.
    """
    views: dict[str, list[Transform]] = {}
    rest: dict[str, Any] = {}
    for index, step in enumerate(pipeline):
        place = f'[{index}]'
        fields = Fields(step)
        kind = bare_type(step)
        if kind == 'MultiView':
            fields.take('type')
            two = zip(names, _two_views(fields), strict=True)
            for number, (name, view) in enumerate(two, 1):
                where = f'{place}.view{number}'
                views[name] = _convert_view(view, where, rest)
        elif kind in _STRAIGHT:
            fields.take('type')
            fields.take('meta_keys')
            fields.take_if('file_client_args', {'backend': 'disk'}, None)
            fields.take_if('backend_args', {'backend': 'local'}, None)
        rest.update(_placed(fields, place))
    if not views:
        raise ValueError(
            'train_dataloader.dataset.pipeline has no MultiView: it is not '
            'that of a pre-training with two views.'
        )
    return views, rest


def _two_views(fields: Fields) -> list[Any]:
    numbers = fields.take('num_views', 2)
    pipelines = fields.take('transforms')
    numbers = [numbers] if isinstance(numbers, int) else list(numbers)
    views = [
        pipeline
        for number, pipeline in zip(numbers, pipelines, strict=False)
        for _ in range(number)
    ]
    if len(views) != 2:
        raise ValueError(
            f'MultiView makes {len(views)} views (num_views={numbers}); '
            'momentum contrast takes two.'
        )
    return views


def _convert_view(
    view: Sequence[Mapping[str, Any]], place: str, rest: dict[str, Any]
) -> list[Transform]:
    """Return our transforms; what was not understood goes into ``rest``."""
    converted: list[Transform] = []
    for index, step in enumerate(view):
        where = f'{place}[{index}]'
        fields = Fields(step)
        kind = bare_type(step)
        if kind == 'RandomApply' and 'transforms' in step:
            fields.take('type')
            steps = fields.take('transforms')
            inner = _convert_view(steps, where, rest)
            prob = fields.take('prob', 0.5)
            if len(inner) == 1 and inner[0]['type'] == 'FastColorJitter':
                converted.append({**inner[0], 'prob': prob})
            else:
                converted.append(
                    dict(type='RandomApply', transforms=inner, prob=prob)
                )
        elif kind in _TRANSFORMS:
            fields.take('type')
            result = _TRANSFORMS[kind](fields)
            if result is not None:
                converted.append(result)
        rest.update(_placed(fields, where))
    return converted


def _crop(fields: Fields) -> Transform:
    size = fields.take('size')
    if size is None:  # mmpretrain: scale is the size
        size, share = fields.take('scale'), fields.take('crop_ratio_range')
    else:  # mmselfsup: as torchvision
        share = fields.take('scale')
    fields.take_if('backend', 'pillow')
    fields.take_if('interpolation', 'bilinear')
    result: Transform = dict(
        type='FastRandomResizedCrop',
        size=size,
        scale=tuple(share or (0.08, 1.0)),
    )
    ratio = fields.take('aspect_ratio_range', fields.take('ratio'))
    if ratio is not None:
        result['ratio'] = tuple(ratio)
    return result


def _jitter(fields: Fields) -> Transform:
    names = ('brightness', 'contrast', 'saturation', 'hue')
    return dict(
        type='FastColorJitter',
        **{name: fields.take(name, 0.0) for name in names},
    )


def _grey(fields: Fields) -> Transform:
    fields.take('keep_channels')
    weights = fields.peek('channel_weights')
    if weights is not None and tuple(weights) == _GREY:
        fields.take('channel_weights')
    return dict(type='FastGrayscale', prob=fields.take('prob', 0.5))


def _blur(fields: Fields) -> Transform:
    fields.take_if('magnitude_std', 'inf')
    sigma = fields.take('magnitude_range')
    if sigma is None:
        sigma = (fields.take('sigma_min'), fields.take('sigma_max'))
    return dict(
        type='FastGaussianBlur',
        sigma=tuple(sigma),
        prob=fields.take('prob', 0.5),
    )


def _solarize(fields: Fields) -> Transform | None:
    threshold = fields.take('thr', fields.take('threshold', 128))
    prob = fields.take('prob', 0.5)
    if prob == 0:
        return None
    return dict(type='FastSolarize', threshold=threshold, prob=prob)


def _flip(fields: Fields) -> Transform:
    fields.take_if('direction', 'horizontal')
    return dict(type='FastFlip', horizontal=fields.take('prob', 0.5))


_TRANSFORMS: dict[str, Callable[[Fields], Transform | None]] = {
    'RandomResizedCrop': _crop,
    'ColorJitter': _jitter,
    'RandomGrayscale': _grey,
    'GaussianBlur': _blur,
    'RandomGaussianBlur': _blur,
    'Solarize': _solarize,
    'RandomSolarize': _solarize,
    'RandomFlip': _flip,
}


def _placed(fields: Fields, place: str) -> dict[str, Any]:
    return {f'{place}.{name}': v for name, v in fields.rest().items()}
