import math
from collections.abc import Sequence
from pathlib import Path

from mmmoco.json_lines import read_json_lines

Points = Sequence[tuple[float, float]]
Series = dict[str, list[tuple[float, float]]]


def read_scalars(path: str | Path) -> Series:
    """Read ``scalars.json`` as mmengine's LocalVisBackend writes it.

    Args:
        path: One JSON object a line, each with a ``step``.

    Returns:
        For each scalar its (step, value) pairs, in order. Where the loss
        goes back, a run was resumed within the second that names its folder:
        what it did again counts, what it did before goes.

    Raises:
        ValueError: If a line is no JSON object, naming it, or the file is
            too large.
    """
    parts: list[Series] = [{}]
    cuts, losses = list[float](), list[float]()
    for number, record in enumerate(read_json_lines(path), 1):
        step = record.get('step', number)
        if not is_number(step) or not math.isfinite(step):
            raise ValueError(f'{str(path)!r}: step={step!r} is no number')
        if 'loss' in record and losses and losses[-1] >= step:
            while losses and losses[-1] >= step:
                losses.pop()
            cuts.append(step)
            parts.append({})
        if is_number(record.get('loss')):
            losses.append(float(step))
        for name, value in record.items():
            if name != 'step' and is_number(value):
                point = float(step), float(value)
                parts[-1].setdefault(name, []).append(point)
    return _joined(parts, cuts)


def _joined(parts: Sequence[Series], cuts: Sequence[float]) -> Series:
    """Join parts; after each but the last, a cut drops what is not before it.

    From the last to the first, so that every point is looked at once.
    """
    limits = [math.inf] * len(parts)
    for number in range(len(cuts) - 1, -1, -1):
        limits[number] = min(cuts[number], limits[number + 1])
    series: Series = {}
    for part, limit in zip(parts, limits, strict=True):
        for name, points in part.items():
            kept = [point for point in points if point[0] < limit]
            if kept:
                series.setdefault(name, []).extend(kept)
    return series


def is_number(value: object) -> bool:
    """Whether a value of a JSON file is a number; true and false are not."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value.bit_length() <= 1000  # What float can hold.
    return isinstance(value, float)


def merge_scalars(parts: Sequence[Series]) -> Series:
    """Join the scalars of a run that was stopped and resumed.

    Where two parts overlap the later one counts: what a run logged after the
    checkpoint it was resumed from was done again. A later part that starts
    as early as the first one is a new run, and the earlier ones go.

    Args:
        parts: In the order of time.
    """
    segments: dict[str, list[Points]] = {}
    first = math.inf
    for part in parts:
        start = part['loss'][0][0] if part.get('loss') else math.inf
        if start <= first and math.isfinite(start):
            segments, first = {}, start
        for name, points in part.items():
            if points:
                segments.setdefault(name, []).append(points)
    merged: Series = {}
    for name, found in segments.items():
        limit, kept = math.inf, list[Points]()
        # From the last to the first, so that every point is looked at once.
        for some in reversed(found):
            kept.append([point for point in some if point[0] < limit])
            limit = min(limit, some[0][0])
        merged[name] = [point for some in reversed(kept) for point in some]
    return merged
