import json
from pathlib import Path

Series = dict[str, list[tuple[float, float]]]


def read_scalars(path: str | Path) -> Series:
    """Read ``scalars.json`` as mmengine's LocalVisBackend writes it.

    Args:
        path: One JSON object a line, each with a ``step``.

    Returns:
        For each scalar its (step, value) pairs, in order.

    Raises:
        ValueError: If a line is no JSON object, naming it.
    """
    series: Series = {}
    with open(path, encoding='utf-8') as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(
                    f'{str(path)!r}, line {number}: {error}'
                ) from None
            step = float(record.get('step', number))
            for name, value in record.items():
                if name != 'step' and isinstance(value, int | float):
                    series.setdefault(name, []).append((step, float(value)))
    return series
