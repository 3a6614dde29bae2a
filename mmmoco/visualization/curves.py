from collections.abc import Mapping
from pathlib import Path
from typing import IO

from matplotlib.figure import Figure

from .scalars import Points


def plot_curves(
    path: str | Path | IO[bytes],
    loss: Points,
    knn: Points,
    references: Mapping[str, float] | None = None,
) -> None:
    """Draw the loss, and beside it the k-NN accuracy, to a PNG.

    Args:
        path: File to write, or one that is open.
        loss: (iteration, loss) pairs.
        knn: (epoch, top-1 in percent) pairs.
        references: Accuracies to compare with, drawn as level lines.
    """
    figure = Figure(figsize=(10, 4), layout='constrained')
    (left, right) = figure.subplots(1, 2)
    left.plot(*zip(*loss, strict=True), color='tab:blue')
    left.set(title='Training loss', xlabel='iteration', ylabel='InfoNCE')
    right.plot(
        *zip(*knn, strict=True), marker='o', color='tab:orange', label='MoCo'
    )
    styles = ('--', ':', '-.')
    for i, (name, value) in enumerate((references or {}).items()):
        right.axhline(
            value,
            linestyle=styles[i % len(styles)],
            color='tab:gray',
            label=f'{name}: {value:.1f} %',
        )
    right.set(title='k-NN accuracy', xlabel='epoch', ylabel='top-1 (%)')
    right.legend(loc='lower right', bbox_to_anchor=(1.0, 0.1))
    for axis in (left, right):
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
