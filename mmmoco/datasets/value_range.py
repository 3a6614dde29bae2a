"""Which values images of more than 8 bits have, seen over a data set.

One dark image says nothing: it may be night. So it is asked of some images
together, spread over the data set, before a run begins.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmmoco.files import read_file
from mmmoco.messages import log_info, log_warning, printable

from .band_drift import check_drift
from .transforms.loading import (
    NARROW,
    LoadRGB,
    decoding,
    deep_values,
    identify,
    narrow,
)

Values = NDArray[Any]

_LOOKED_AT, _MEASURED = 16, 64  # Images.
_KEPT = 4096  # Values of each of them.
_PERCENT = (0.1, 99.9)


def check_ranges(dataset: Any) -> None:
    """Hold what loads a data set's images against some of them.

    ``range='auto'`` that is still open is measured; where 16 bits are to be
    divided by 256, the images looked at must together use more of them than
    a sixteenth. Bands are held against what they are scaled by.

    Args:
        dataset: Has ``pipeline`` and ``sample(index)``.

    Raises:
        ValueError: If its images would become nearly black.
    """
    steps = list(_steps(dataset.pipeline))
    check_drift(steps, _some(dataset, _LOOKED_AT))
    loads = [step for step in steps if isinstance(step, LoadRGB)]
    if loads:
        _note_dropped(dataset)
    for load in loads:
        if load.is_open:
            load.settle(measure_range(dataset))
    undecided = [load for load in loads if load.range is None]
    if not undecided:
        return
    found = list(_deep_images(dataset, _LOOKED_AT))
    if not found or any(values.dtype.kind != 'u' for values in found):
        return  # Floats are refused where they are read.
    low = min(int(values.min()) for values in found)
    high = max(int(values.max()) for values in found)
    if 0 < high - low <= NARROW:
        raise ValueError(
            f'{len(found)} of the images looked at have 16 bits; in all of '
            f'them {narrow(low, high)}.'
        )
    for load in undecided:
        load.allow_narrow = high > low


def _note_dropped(dataset: Any) -> None:
    """Warn of a fourth channel that LoadRGB leaves out, if it says something.

    An alpha channel that is the same everywhere says nothing.
    """
    names = []
    for sample in _some(dataset, _LOOKED_AT):
        try:
            found = sample()
            if 'img' in found:
                continue
            path, data = str(found['img_path']), found.get('img_bytes')
            with decoding(path):
                image = identify(read_file(path) if data is None else data)
                if image.mode != 'RGBA':
                    continue
                low, high = image.getextrema()[3]  # type: ignore[misc]
        except OSError:
            continue  # A bad file; it is noted when it is met in training.
        if low != high:
            names.append(path)
    if names:
        log_warning(
            f'{len(names)} of the images looked at have a fourth channel '
            f'(such as {printable(names[0])!r}), which LoadRGB leaves out. If '
            'it is a band and no transparency, read them with LoadBands.'
        )


def measure_range(dataset: Any) -> tuple[float, float] | None:
    """Return the range in which nearly all values of the images lie.

    Args:
        dataset: Any of ours.

    Returns:
        The percentiles 0.1 and 99.9 of some images; None if those have 8
        bits, which have a range.

    Raises:
        ValueError: If all values are equal.
    """
    kept, whole = list[Values](), True
    for values in _deep_images(dataset, _MEASURED):
        every: Values = values[..., :3] if values.ndim == 3 else values
        flat: Values = every.ravel()
        flat = flat[:: max(1, flat.size // _KEPT)]
        if flat.dtype.kind == 'f':
            flat, whole = flat[np.isfinite(flat)], False
        kept.append(flat)
    joined = np.concatenate(kept) if kept else np.zeros(0)
    if not joined.size:
        log_warning(
            f"range='auto': none of {_MEASURED} images looked at has more "
            'than 8 bits, so there is nothing to scale.'
        )
        return None
    low, high = map(float, np.percentile(joined, _PERCENT))
    if whole:
        low, high = float(np.floor(low)), float(np.ceil(high))
    if not low < high:
        raise ValueError(
            f"range='auto': nearly all values of {len(kept)} images are "
            f'{low:g}: give range=(low, high) in LoadRGB.'
        )
    log_info(
        f"range='auto': {low:g} to {high:g}, the percentiles "
        f'{_PERCENT[0]} and {_PERCENT[1]} of {len(kept)} images.'
    )
    return low, high


def _steps(pipeline: Any) -> Iterator[Any]:
    for transform in getattr(pipeline, 'transforms', ()):
        yield transform
        yield from _steps(getattr(transform, 'load', None))


def _deep_images(dataset: Any, count: int) -> Iterator[Values]:
    """Yield the values of those images that have more than 8 bits."""
    for sample in _some(dataset, count):
        try:
            values = _values(sample())
        except OSError:
            continue  # A bad file; it is noted when it is met in training.
        if values is not None and values.size:
            yield values


def _some(dataset: Any, count: int) -> Iterator[Any]:
    """Yield what reads some samples, spread over a data set."""
    if dataset.is_stream:
        shards = min(8, dataset.num_shards)
        for i in range(shards):
            shard = i * dataset.num_shards // shards
            try:
                part = islice(dataset.read_shard(shard), count // shards)
                yield from (record.load for record in part)
            except OSError:
                continue
        return
    length = len(dataset)
    for i in range(min(count, length)):
        index = i * length // min(count, length)
        yield lambda index=index: dataset.sample(index)


def _values(sample: dict[str, Any]) -> Values | None:
    if 'img' in sample:
        array = np.asarray(sample['img'])
        return None if array.dtype == np.uint8 else array
    path, data = sample['img_path'], sample.get('img_bytes')
    if data is None:
        data = read_file(path)
    with decoding(str(path)):
        return deep_values(identify(data), data)
