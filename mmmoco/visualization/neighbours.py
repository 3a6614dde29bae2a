from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

GREEN, RED = '#2a9d3a', '#c0392b'


def draw_neighbours(
    path: str | Path | IO[bytes],
    queries: NDArray[np.uint8],
    labels: Sequence[int],
    neighbours: NDArray[np.uint8],
    neighbour_labels: NDArray[np.int64],
    classes: Sequence[str],
) -> None:
    """Draw queries with their nearest neighbours to a PNG.

    Args:
        path: File to write, or one that is open.
        queries: Q×H×W×C images, C is 1 or 3.
        labels: Q class indices.
        neighbours: Q×K×H×W×C images, nearest first.
        neighbour_labels: Q×K class indices; a frame is green where the
            class is the query's, red elsewhere.
        classes: Names of the classes.
    """
    rows, columns = neighbours.shape[:2]
    figure = Figure(
        figsize=(1.0 * (columns + 1) + 0.4, 1.18 * rows + 0.5),
        layout='constrained',
    )
    axes = figure.subplots(rows, columns + 1, squeeze=False)
    for row in range(rows):
        _show(axes[row, 0], queries[row], classes[labels[row]], 'black')
        for column in range(columns):
            label = int(neighbour_labels[row, column])
            same = label == labels[row]
            _show(
                axes[row, column + 1],
                neighbours[row, column],
                classes[label],
                GREEN if same else RED,
            )
    figure.suptitle('query, and its nearest neighbours', x=0.01, ha='left')
    figure.savefig(path, dpi=110)


def _show(
    axis: Axes, image: NDArray[np.uint8], title: str, colour: str
) -> None:
    grey = image.shape[-1] == 1
    axis.imshow(
        image[..., 0] if grey else image, cmap='gray', vmin=0, vmax=255
    )
    axis.set_title(title, fontsize=9, color=colour, pad=2)
    axis.set(xticks=[], yticks=[])
    for side in axis.spines.values():
        side.set(color=colour, linewidth=2)
