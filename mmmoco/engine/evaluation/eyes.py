"""What a network sees of an image: in training, and in an evaluation.

Read from configs; nothing is built. What a config does not tell is None and
is not compared.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mmmoco.engine import checkpoint_io
from mmmoco.registry import bare_type, dicts_in

#: Mean and std that differ by less, as a part of the std, are equal: 0.228
#: and 0.229 are both in use for red.
TOLERANCE = 0.02

CROPS = (
    'RandomResizedCrop',
    'FastRandomResizedCrop',
    'BatchRandomResizedCrop',
    'CenterCrop',
    'RandomCrop',
)
RESIZES = ('Resize', 'ResizeEdge')
#: What mmcv and torchvision take if nothing is said.
USUAL = 'bilinear'


class Eyes(NamedTuple):
    """How images reach the network.

    Attributes:
        mean: By channel, subtracted.
        std: By channel, divided by.
        channel_order: ``'rgb'`` or ``'bgr'``.
        value_range: Largest value of a pixel before the mean is subtracted.
        input_range: What of 16-bit and float images becomes black and white;
            ``'usual'`` if nothing is said.
        resize: Side before the crop.
        crop: Side of what the network sees.
        interpolation: Of the last resizing.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    channel_order: str | None = None
    value_range: float | None = None
    input_range: tuple[float, ...] | str | None = None
    resize: tuple[int, ...] | None = None
    crop: tuple[int, ...] | None = None
    interpolation: str | None = None


def eyes_of(
    preprocessor: Mapping[str, Any] | None,
    pipeline: Sequence[Any] | None = None,
) -> Eyes:
    """Read them from a data preprocessor and the transforms before it.

    Of several views the largest counts.

    Args:
        preprocessor: ``data_preprocessor`` of a config.
        pipeline: Transforms of a data set.
    """
    given = preprocessor or {}
    steps = [
        (bare_type(step).rpartition('/')[2], step)
        for step in dicts_in(pipeline or ())
    ]
    known: dict[str, Any] = {
        name: _numbers(given.get(name)) for name in ('mean', 'std')
    }
    order: str | None = None
    for kind, step in steps:
        if kind == 'LoadRGB':
            order, known['value_range'] = 'rgb', 255.0
            known['input_range'] = _numbers(step.get('range')) or 'usual'
        elif kind == 'LoadImageFromFile':
            grey = 'gray' in str(step.get('color_type', 'color'))
            order, known['value_range'] = None if grey else 'bgr', 255.0
        elif kind == 'ToTensor':
            known['value_range'] = 1.0
    if order and (given.get('to_rgb') or given.get('bgr_to_rgb')):
        order = 'bgr' if order == 'rgb' else 'rgb'
    known['channel_order'] = order
    sized = [(kind, step) for kind, step in steps if kind in CROPS + RESIZES]
    sides = [(kind, _side(step), step) for kind, step in sized]
    resizes = [side for kind, side, _ in sides if side and kind in RESIZES]
    crops = [side for kind, side, _ in sides if side and kind in CROPS]
    # A resize without a crop behind it is what the network sees.
    known['resize'] = max(resizes) if resizes and crops else None
    known['crop'] = max(crops) if crops else max(resizes, default=None)
    for kind, _, step in sides:
        if kind not in ('CenterCrop', 'RandomCrop'):
            told = step.get('interpolation') or USUAL
            known['interpolation'] = str(told).rsplit('.')[-1].lower()
    return Eyes(**known)


def eyes_of_training(cfg: Mapping[str, Any]) -> Eyes:
    """Return how the training of a config sees images."""
    loader = cfg.get('train_dataloader') or {}
    dataset = loader.get('dataset') or {}
    given = preprocessor_of(cfg)
    # The views may be made by either.
    steps = [*(dataset.get('pipeline') or ()), (given or {}).get('views')]
    return eyes_of(given, steps)


def preprocessor_of(cfg: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the data preprocessor of a config, wherever it stands."""
    model = cfg.get('model') or {}
    found: Any = model.get('data_preprocessor') or cfg.get('data_preprocessor')
    return found if isinstance(found, Mapping) else None


def eyes_of_checkpoint(meta: Mapping[str, Any]) -> Eyes | None:
    """Return how the training of a checkpoint saw images; None if untold.

    Its config is read as text; an imported file holds
    ``meta['preprocessing']``.

    Args:
        meta: ``'meta'`` of a checkpoint.
    """
    told = meta.get('preprocessing')
    if isinstance(told, Mapping):
        span = _numbers([told.get('value_range', 255)])
        order = told.get('channel_order')
        return Eyes(
            _numbers(told.get('mean')),
            _numbers(told.get('std')),
            None if order is None else str(order),
            span[0] if span else None,
        )
    cfg = checkpoint_io.config_in(meta)
    found = Eyes() if cfg is None else eyes_of_training(cfg)
    return None if found == Eyes() else found


def differences(
    first: Eyes, second: Eyes, places: tuple[str, str]
) -> list[str]:
    """Return one line for each difference, with both values.

    Args:
        first: What counts.
        second: What is compared with it.
        places: What the two are called.
    """
    lines = []

    def note(name: str, a: Any, b: Any, more: str = '') -> None:
        lines.append(
            f'{name}: {_shown(a)} in {places[0]}, {_shown(b)} in '
            f'{places[1]}{more}'
        )

    spans = first.value_range or 255.0, second.value_range or 255.0
    scaled = [
        (_scaled(eyes.mean, span), _scaled(eyes.std, span))
        for eyes, span in zip((first, second), spans, strict=True)
    ]
    (mean_a, std_a), (mean_b, std_b) = scaled
    unit = std_a or std_b
    if not _close(mean_a, mean_b, unit):
        backwards = mean_b and _close(mean_a, mean_b[::-1], unit)
        more = ': the channels are swapped' if backwards else ''
        note('mean', first.mean, second.mean, more)
    if not _close(std_a, std_b, unit):
        note('std', first.std, second.std)
    if spans[0] != spans[1] and (lines or not (mean_a and mean_b)):
        note('value_range', spans[0], spans[1])
    for name in (
        'channel_order',
        'input_range',
        'resize',
        'crop',
        'interpolation',
    ):
        a, b = getattr(first, name), getattr(second, name)
        if a is not None and b is not None and a != b:
            note(name, a, b)
    return lines


def compare(told: Eyes | None, seen: Mapping[str, Eyes]) -> list[str]:
    """Compare data sets of an evaluation with each other and a training.

    Args:
        told: Of the training; None: unknown.
        seen: Of each data set, by name.
    """
    (first, own), *others = seen.items()
    lines = [
        line
        for name, eyes in others
        for line in differences(own, eyes, (first, name))
    ]
    if all(eyes == own for _, eyes in others):
        seen = {'the evaluation': own}
    for name, eyes in seen.items():
        lines += differences(told or Eyes(), eyes, ('the training', name))
    return lines


def compare_start(cfg: Mapping[str, Any]) -> list[str]:
    """Compare a training with the pre-training that its weights are of.

    Sizes may differ: a detector sees larger images. Files behind a URL, and
    those that do not tell, are not compared.

    Args:
        cfg: Config of a training with ``Pretrained`` parts or ``load_from``.
    """
    given = [
        part.get('checkpoint')
        for part in dicts_in(cfg.get('model'))
        if part.get('type') == 'Pretrained'
    ]
    lines: list[str] = []
    own = _without_sizes(eyes_of_training(cfg))
    for path in dict.fromkeys([*given, cfg.get('load_from')]):
        if not isinstance(path, str) or not os.path.isfile(path):
            continue
        told = eyes_of_checkpoint(checkpoint_io.read_meta(path))
        if told is not None:
            places = (repr(os.path.basename(path)), 'this training')
            lines += differences(_without_sizes(told), own, places)
    return lines


def _without_sizes(eyes: Eyes) -> Eyes:
    return eyes._replace(resize=None, crop=None, interpolation=None)


def _side(step: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Return the side that a crop or a resize gives; one if it is square."""
    # mmcv calls "scale" what torchvision calls "size"; where both stand,
    # "scale" is the range of the areas.
    names = ('size', 'crop_size', 'scale')
    value = next((step[n] for n in names if n in step), None)
    numbers = _numbers(value if isinstance(value, list | tuple) else [value])
    if numbers is None or min(numbers) < 1:
        return None
    sides = tuple(int(n) for n in numbers)
    return sides[:1] if len(set(sides)) == 1 else sides


def _numbers(values: Any) -> tuple[float, ...] | None:
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        return None
    return numbers or None


def _scaled(
    values: tuple[float, ...] | None, span: float
) -> tuple[float, ...] | None:
    return None if values is None else tuple(v / span for v in values)


def _close(
    a: tuple[float, ...] | None,
    b: tuple[float, ...] | None,
    unit: tuple[float, ...] | None,
) -> bool:
    """Whether two values by channel are equal; what is unknown is."""
    if a is None or b is None:
        return True
    if len(a) != len(b):
        return False
    least = min(unit) if unit else max(map(abs, a))
    return all(
        abs(x - y) <= TOLERANCE * least for x, y in zip(a, b, strict=True)
    )


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        inner = ', '.join(f'{v:g}' for v in value)
        return inner if len(value) == 1 else f'[{inner}]'
    return f'{value:g}' if isinstance(value, float) else str(value)
