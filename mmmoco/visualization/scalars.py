import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
        ValueError: If a line is no JSON object, naming it.
    """
    series: Series = {}
    for number, record in enumerate(read_json_lines(path), 1):
        step = record.get('step', number)
        if not is_number(step) or not math.isfinite(step):
            raise ValueError(f'{str(path)!r}: step={step!r} is no number')
        losses = series.get('loss')
        if 'loss' in record and losses and losses[-1][0] >= step:
            series = {
                name: [point for point in points if point[0] < step]
                for name, points in series.items()
            }
        for name, value in record.items():
            if name != 'step' and is_number(value):
                series.setdefault(name, []).append((float(step), float(value)))
    return series


def read_json_lines(path: str | Path) -> list[dict[str, Any]]:
    """Read a file with one JSON object a line.

    A last line that is cut off, as a killed run leaves it, does not count.

    Args:
        path: The file.

    Raises:
        ValueError: If a line is no JSON object, naming it.
    """
    text = Path(path).read_text(encoding='utf-8', errors='replace')
    lines = text.splitlines()
    records = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError('no JSON object')
        except (ValueError, RecursionError) as error:
            if number == len(lines) and not text.endswith('\n'):
                break
            raise ValueError(
                f'{str(path)!r}, line {number}: {error}'
            ) from None
        records.append(record)
    return records


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
    merged: Series = {}
    for part in parts:
        starts = [
            series['loss'][0][0] if series.get('loss') else math.inf
            for series in (merged, part)
        ]
        if starts[1] <= starts[0] and math.isfinite(starts[1]):
            merged = {}
        for name, points in part.items():
            earlier = merged.get(name, [])
            kept = [p for p in earlier if p[0] < points[0][0]]
            merged[name] = kept + points
    return merged
