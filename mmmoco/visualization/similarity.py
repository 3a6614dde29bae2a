"""Pictures of similarity maps, thresholds, histograms, reconstructions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray


def plot_thresholds(
    path: str | Path | IO[bytes], curve: Mapping[float, tuple[float, float]]
) -> None:
    """Draw mIoU over the threshold.

    Args:
        path: File to write, or one that is open.
        curve: Threshold → mIoU over objects and classes, percent.
    """
    figure = Figure(figsize=(6, 4), layout='constrained')
    axis = figure.subplots()
    axis.plot(list(curve), [objects for objects, _ in curve.values()])
    axis.set(xlabel='threshold T', ylabel='mIoU over objects (%)', xlim=(0, 1))
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def plot_similarities(
    path: str | Path | IO[bytes],
    histograms: Mapping[str, tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> None:
    """Draw the distributions inside objects and between them.

    Args:
        path: File to write, or one that is open.
        histograms: Name → counts inside and between, over [−1, 1].
    """
    found = np.sum([np.add(*pair) for pair in histograms.values()], axis=0)
    lowest = -1 + 2 * np.flatnonzero(found)[:1].sum() / len(found)
    figure = Figure(figsize=(4.2 * len(histograms), 3.2), layout='constrained')
    axes = figure.subplots(1, len(histograms), squeeze=False, sharex=True)
    for axis, (name, pair) in zip(axes[0], histograms.items(), strict=True):
        for counts, label, colour in zip(
            pair,
            ('inside an object', 'between objects'),
            ('tab:blue', 'tab:orange'),
            strict=True,
        ):
            edges = np.linspace(-1, 1, len(counts) + 1)
            axis.stairs(
                counts / max(counts.sum(), 1),
                edges,
                fill=True,
                alpha=0.5,
                color=colour,
                label=label,
            )
        axis.set(title=name, xlabel='cosine', ylabel='fraction of pairs')
        axis.set_xlim(lowest - 0.02, 1.02)
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def draw_segmentations(
    path: str | Path | IO[bytes],
    rows: Sequence[
        tuple[
            NDArray[np.uint8],
            tuple[int, int],
            NDArray[np.float32],
            NDArray[np.bool_],
        ]
    ],
    threshold: float,
) -> None:
    """Draw image with prompt, similarity map, mask at T and ground truth.

    The colours of all maps span what the lowest one holds up to 1; a line
    runs where a map crosses T.

    Args:
        path: File to write, or one that is open.
        rows: Image H×W×3, prompt (y, x), map H×W and true mask H×W.
        threshold: T.
    """
    titles = ('prompt', 'similarity', f'above {threshold:g}', 'ground truth')
    lowest = min(float(row[2].min()) for row in rows)
    figure = Figure(figsize=(9.2, 2.1 * len(rows) + 0.3), layout='constrained')
    axes = figure.subplots(len(rows), 4, squeeze=False)
    for line, (image, (y, x), similarity, mask) in zip(
        axes, rows, strict=True
    ):
        line[0].imshow(image)
        line[0].plot(x, y, marker='+', color='red', ms=10, mew=2)
        shown = line[1].imshow(similarity, vmin=lowest, vmax=1)
        if similarity.min() < threshold < similarity.max():
            line[1].contour(
                similarity, [threshold], colors='white', linewidths=1
            )
        line[2].imshow(keep_mask(image, similarity > threshold))
        line[3].imshow(keep_mask(image, mask))
        for axis in line:
            axis.set(xticks=[], yticks=[])
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=9)
    figure.colorbar(shown, ax=axes, label='cosine', shrink=0.7, aspect=30)
    figure.savefig(path, dpi=110)


def draw_reconstructions(
    path: str | Path | IO[bytes],
    clean: NDArray[np.uint8],
    corrupted: NDArray[np.uint8],
    restored: NDArray[np.uint8],
) -> None:
    """Draw clean, corrupted and reconstructed images side by side.

    Args:
        path: File to write, or one that is open.
        clean: N×H×W×C, C is 1 or 3.
        corrupted: The same images, corrupted.
        restored: The same images, restored.
    """
    figure = Figure(
        figsize=(1.5 * len(clean) + 0.3, 4.8), layout='constrained'
    )
    axes = figure.subplots(3, len(clean), squeeze=False)
    names = ('clean', 'corrupted', 'restored')
    for line, name, images in zip(
        axes, names, (clean, corrupted, restored), strict=True
    ):
        line[0].set_ylabel(name)
        for axis, image in zip(line, images, strict=True):
            axis.imshow(image.squeeze(), cmap='gray', vmin=0, vmax=255)
            axis.set(xticks=[], yticks=[])
    figure.savefig(path, dpi=110)


def keep_mask(
    image: NDArray[np.uint8], mask: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Keep the pixels of a mask of an image H×W×3, and darken the rest."""
    result: NDArray[np.uint8] = np.where(
        mask[..., None], image, image // 4
    ).astype(np.uint8)
    return result
