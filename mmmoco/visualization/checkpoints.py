from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from matplotlib.figure import Figure


def plot_checkpoints(
    path: str | Path | IO[bytes],
    series: Mapping[str, Sequence[tuple[float, float]]],
    unit: str = 'epoch',
) -> None:
    """Draw figures over the checkpoints of a run to a PNG.

    Args:
        path: File to write, or one that is open.
        series: Name of the figure → (number, percent) pairs.
        unit: What the numbers count.
    """
    figure = Figure(figsize=(6, 4), layout='constrained')
    axis = figure.subplots()
    for name, points in series.items():
        axis.plot(*zip(*points, strict=True), marker='o', label=name)
        number, best = max(points, key=lambda point: point[1])
        axis.annotate(
            f'{best:.1f} %',
            (number, best),
            textcoords='offset points',
            xytext=(0, 6),
            ha='center',
        )
    axis.margins(y=0.15)
    axis.set(xlabel=unit, ylabel='%')
    axis.legend(loc='best')
    axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
