"""How images reach a network: in its training, and in an evaluation.

Read from configs; nothing is built. What a config does not tell is None and
is not compared.
"""

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mmmoco.engine import checkpoint_io
from mmmoco.messages import clipped, log_info, log_warning, shortened
from mmmoco.registry import bare_type, dicts_in, value_at

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

Numbers = tuple[float, ...]


class Preprocessing(NamedTuple):
    """How images reach a network.

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

    mean: Numbers | None = None
    std: Numbers | None = None
    channel_order: str | None = None
    value_range: float | None = None
    input_range: Numbers | str | None = None
    resize: tuple[int, ...] | None = None
    crop: tuple[int, ...] | None = None
    interpolation: str | None = None


def preprocessing_of(
    preprocessor: Mapping[str, Any] | None,
    pipeline: Sequence[Any] | None = None,
) -> Preprocessing:
    """Read it from a data preprocessor and the transforms before it.

    Of several views the largest counts.

    Args:
        preprocessor: ``data_preprocessor`` of a config.
        pipeline: Transforms of a data set.
    """
    given = preprocessor or {}
    known: dict[str, Any] = {}
    order: str | None = None
    resizes: list[Any] = []
    crops: list[Any] = []
    for step in dicts_in(pipeline or ()):
        kind = bare_type(step).rpartition('/')[2]
        if kind == 'LoadRGB':
            order, known['value_range'] = 'rgb', 255.0
            known['input_range'] = _numbers(step.get('range')) or 'usual'
        elif kind == 'ScaleBands':
            ends = [_row(step.get(name)) for name in ('low', 'high')]
            known['input_range'] = _numbers([*ends[0], *ends[1]])
        elif kind == 'LoadImageFromFile':
            grey = 'gray' in str(step.get('color_type', 'color'))
            order, known['value_range'] = None if grey else 'bgr', 255.0
        elif kind == 'ToTensor':
            known['value_range'] = 1.0
        elif kind in CROPS + RESIZES:
            (crops if kind in CROPS else resizes).append(_side(step))
            if kind not in ('CenterCrop', 'RandomCrop'):
                told = step.get('interpolation') or USUAL
                known['interpolation'] = str(told).rsplit('.')[-1].lower()
    if order and (given.get('to_rgb') or given.get('bgr_to_rgb')):
        order = 'bgr' if order == 'rgb' else 'rgb'
    resize = max(filter(None, resizes), default=None)
    crop = max(filter(None, crops), default=None)
    return Preprocessing(
        mean=_numbers(given.get('mean')),
        std=_numbers(given.get('std')),
        channel_order=order,
        # A resize without a crop behind it is what the network sees.
        resize=resize if crop else None,
        crop=crop or resize,
        **known,
    )


def preprocessing_of_training(cfg: Mapping[str, Any]) -> Preprocessing:
    """Return how images reach the network in the training of a config."""
    given = preprocessor_of(cfg)
    # The views may be made by either.
    steps = [
        value_at(cfg, 'train_dataloader.dataset.pipeline'),
        value_at(given, 'views'),
    ]
    return preprocessing_of(given, steps)


def preprocessor_of(cfg: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the data preprocessor of a config, wherever it stands."""
    inside = value_at(cfg, 'model.data_preprocessor')
    found = inside or cfg.get('data_preprocessor')
    return found if isinstance(found, Mapping) else None


def preprocessing_of_checkpoint(
    meta: Mapping[str, Any],
) -> Preprocessing | None:
    """Return that of the training of a checkpoint; None if untold.

    Its config is read as text; an imported file holds
    ``meta['preprocessing']``.

    Args:
        meta: ``'meta'`` of a checkpoint.
    """
    told = meta.get('preprocessing')
    if isinstance(told, Mapping):
        span = _numbers([told.get('value_range', 255)])
        order = told.get('channel_order')
        return Preprocessing(
            _numbers(told.get('mean')),
            _numbers(told.get('std')),
            None if order is None else str(order).lower(),
            span[0] if span else None,
            crop=_side({'size': told.get('crop')}),
        )
    cfg = checkpoint_io.config_in(meta)
    found = preprocessing_of_training(cfg or {})
    return None if found == Preprocessing() else found


def pixels_of_checkpoint(meta: Mapping[str, Any]) -> Preprocessing:
    """Return how images reached a network, mean and std as of bytes.

    Args:
        meta: ``'meta'`` of a checkpoint.

    Raises:
        ValueError: If it is not told, or not what is done here.
    """
    seen = preprocessing_of_checkpoint(meta)
    if seen is None or seen.mean is None or seen.std is None:
        raise ValueError('it does not tell how its images were normalised.')
    if seen.channel_order not in ('rgb', None):
        raise ValueError(
            f'its images were {shortened(seen.channel_order)}; here they are '
            'read as RGB.'
        )
    if len(seen.mean) != len(seen.std) or min(seen.std) <= 0:
        raise ValueError(
            f'it says mean={shortened(seen.mean)}, std={shortened(seen.std)}.'
        )
    span = 255.0 if seen.value_range is None else seen.value_range
    if span <= 0:
        raise ValueError(f'it says that its values go up to {span:g}.')
    factor = 255.0 / span
    return seen._replace(
        mean=tuple(factor * x for x in seen.mean),
        std=tuple(factor * x for x in seen.std),
    )


def tell_teachers(model: Any) -> None:
    """Tell frozen teachers what their files say of images and licence.

    What the config says counts; a difference is logged. Files behind a URL
    are not asked.

    Args:
        model: With ``teachers``, or any other.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a file tells what is not done here.
    """
    for teacher in getattr(model, 'teachers', ()):
        path, meta = teacher.file, {}
        if path is not None and '://' not in path:
            if not os.path.isfile(path):
                raise FileNotFoundError(
                    f'model.teacher.backbone.init_cfg.checkpoint={path!r} '
                    'does not exist. A file of other authors becomes one by '
                    'mmmoco import.'
                )
            meta = checkpoint_io.read_meta(path)
        told = preprocessing_of_checkpoint(meta) or Preprocessing()
        seen = Preprocessing()
        if told.mean or told.std:
            try:
                seen = pixels_of_checkpoint(meta)
            except ValueError as error:
                raise ValueError(f'The teacher in {path}: {error}') from error
        if teacher.told:
            mean, std = (tuple(x.flatten().tolist()) for x in teacher.levels)
            places = (repr(path), 'model.teacher, which counts')
            known = Preprocessing(seen.mean, seen.std)
            for line in differences(known, Preprocessing(mean, std), places):
                log_warning(line)
        teacher.adopt(seen.mean, seen.std, _licence(meta))
        log_info(
            f'Teacher {teacher.network}, licence: '
            f'{shortened(teacher.license or "unknown")}. What is distilled '
            'from it may fall under the same terms.'
        )


def _licence(meta: Mapping[str, Any]) -> str | None:
    """Return that of a file's weights, else of those it was distilled from."""
    own = [meta.get('license')]
    if own == [None]:
        teachers = meta.get('teachers')
        own = [*teachers.values()] if isinstance(teachers, Mapping) else []
    told = ', '.join(x for x in own[:8] if isinstance(x, str))
    return clipped(told, 80) or None


def recorded(seen: Preprocessing | None) -> dict[str, Any] | None:
    """Return what an imported or exported file says; None: nothing."""
    if seen is None or not seen.mean or not seen.std:
        return None
    told = dict(
        mean=list(seen.mean),
        std=list(seen.std),
        channel_order='bgr' if seen.channel_order == 'bgr' else 'rgb',
        value_range=seen.value_range or 255,
    )
    return told | ({'crop': list(seen.crop)} if seen.crop else {})


def differences(
    first: Preprocessing, second: Preprocessing, places: tuple[str, str]
) -> list[str]:
    """Return one line for each difference, with both values.

    Args:
        first: What counts.
        second: What is compared with it.
        places: What the two are called.
    """
    lines = []

    def note(name: str, a: Any, b: Any, more: str = '') -> None:
        a, b = _shown(a), _shown(b)
        lines.append(f'{name}: {a} in {places[0]}, {b} in {places[1]}{more}')

    spans = first.value_range or 255.0, second.value_range or 255.0
    mean_a, mean_b = map(_scaled, (first.mean, second.mean), spans)
    std_a, std_b = map(_scaled, (first.std, second.std), spans)
    unit = std_a or std_b
    if not _close(mean_a, mean_b, unit):
        backwards = mean_b and _close(mean_a, mean_b[::-1], unit)
        more = ': the channels are swapped' if backwards else ''
        note('mean', first.mean, second.mean, more)
    if not _close(std_a, std_b, unit):
        note('std', first.std, second.std)
    if spans[0] != spans[1] and (lines or not (mean_a and mean_b)):
        note('value_range', *spans)
    for name, a, b in zip(Preprocessing._fields, first, second, strict=True):
        equal = a == b or None in (a, b)
        if not equal and name not in ('mean', 'std', 'value_range'):
            note(name, a, b)
    return lines


def compare(
    told: Preprocessing | None, seen: Mapping[str, Preprocessing]
) -> list[str]:
    """Compare data sets of an evaluation with each other and a training.

    Args:
        told: Of the training; None: unknown.
        seen: Of each data set, by name.
    """
    (first, own), *others = seen.items()
    lines = [
        line
        for name, other in others
        for line in differences(own, other, (first, name))
    ]
    if all(other == own for _, other in others):
        seen = {'the evaluation': own}
    for name, found in seen.items():
        places = 'the training', name
        lines += differences(told or Preprocessing(), found, places)
    return lines


def compare_evaluation(
    cfg: Mapping[str, Any],
    trained: str | Preprocessing | None,
    pipelines: Mapping[str, Any] | None = None,
) -> list[str]:
    """Tell where an evaluation sees images otherwise than the training did.

    Mean, std, order of the channels, range of the values, sizes and
    interpolation, as far as both tell them.

    Args:
        cfg: Config of the evaluation.
        trained: Checkpoint that is evaluated, or what its training saw;
            None: random weights.
        pipelines: Transforms of its data sets, by name; None: whatever the
            tool does, only ``data_preprocessor`` is compared.

    Returns:
        A line for each difference, each of which is logged.
    """
    told = None if isinstance(trained, str) else trained
    if isinstance(trained, str):
        told = preprocessing_of_checkpoint(checkpoint_io.read_meta(trained))
        if told is None:
            log_info(
                f'{trained!r} does not tell how its images were normalised; '
                "the config's mean and std are taken."
            )
    given = preprocessor_of(cfg)
    places = pipelines or {'the evaluation': None}
    seen = {name: preprocessing_of(given, x) for name, x in places.items()}
    lines = compare(told, seen)
    for line in lines:
        log_warning(line)
    return lines


def compare_start(cfg: Mapping[str, Any]) -> list[str]:
    """Compare a training with the pre-training that its weights are of.

    Sizes may differ: a detector sees larger images. Files behind a URL, and
    those that do not tell, are not compared; nor is a ``Teacher``.

    Args:
        cfg: Config of a training with ``Pretrained`` parts or ``load_from``.
    """
    parts = [*dicts_in(cfg.get('model'))]
    teachers = [part for part in parts if bare_type(part) == 'Teacher']
    theirs = {id(part) for part in dicts_in(teachers)}
    given = [
        part.get('checkpoint')
        for part in parts
        if part.get('type') == 'Pretrained' and id(part) not in theirs
    ]
    lines: list[str] = []
    sizes = dict.fromkeys(('resize', 'crop', 'interpolation'))
    own = preprocessing_of_training(cfg)._replace(**sizes)
    for path in dict.fromkeys([*given, cfg.get('load_from')]):
        if not isinstance(path, str) or not os.path.isfile(path):
            continue
        told = preprocessing_of_checkpoint(checkpoint_io.read_meta(path))
        if told is not None:
            places = (repr(os.path.basename(path)), 'this training')
            lines += differences(told._replace(**sizes), own, places)
    return lines


def _side(step: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Return the side that a crop or a resize gives; one if it is square."""
    # mmcv calls "scale" what torchvision calls "size"; where both stand,
    # "scale" is the range of the areas.
    names = ('size', 'crop_size', 'scale')
    value = next((step[n] for n in names if n in step), None)
    numbers = _numbers(_row(value))
    if numbers is None or min(numbers) < 1:
        return None
    sides = tuple(int(n) for n in numbers)
    return sides[:1] if len(set(sides)) == 1 else sides


def _numbers(values: Any) -> Numbers | None:
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError, OverflowError):
        return None
    return numbers if numbers and all(map(math.isfinite, numbers)) else None


def _row(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


def _scaled(values: Numbers | None, span: float) -> Numbers | None:
    return None if values is None else tuple(v / span for v in values)


def _close(a: Numbers | None, b: Numbers | None, unit: Numbers | None) -> bool:
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
