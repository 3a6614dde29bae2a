from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import IO, Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

#: Side of a picture in inches.
SIDE = 2.0


class ViewPicture(NamedTuple):
    """One cell of the grid.

    Attributes:
        image: H×W×C in units of the pixels, any type.
        title: What it is.
        notes: Lines below it.
        fault: What is wrong with it, in a word or two.
        box: Top, left, height and width of what it shows of the original.
    """

    image: NDArray[Any]
    title: str
    notes: Sequence[str] = ()
    fault: str = ''
    box: tuple[int, int, int, int] | None = None


def draw_views(
    path: str | Path | IO[bytes],
    rows: Sequence[Sequence[ViewPicture]],
    bands: Sequence[int] = (0, 1, 2),
) -> None:
    """Draw a grid to a PNG: a row for each sample, its original first.

    Grey levels 0 … 255 are shown as they are if the original is uint8; other
    types are stretched between the 2nd and 98th percentile of the original's
    bands, the views of a row alike. The original shows the boxes of its
    views, in the colours of their titles.

    Args:
        path: File to write, or one that is open.
        rows: Pictures of each sample.
        bands: Which three are red, green and blue, if there are more.
    """
    texts = [
        [[part for note in p.notes for part in wrap(note, 36)] for p in row]
        for row in rows
    ]
    columns = max(len(row) for row in rows)
    lines = max(len(text) for row in texts for text in row)
    # Inches: each cell holds a title, the picture and the notes.
    width, picture_height, line = SIDE + 0.15, SIDE + 0.3, 0.1
    height = picture_height + line * lines + 0.15
    figure = Figure(figsize=(width * columns, height * len(rows)))
    total_width, total_height = figure.get_size_inches()
    for i, row in enumerate(rows):
        low, high = value_range(_visible(row[0].image, bands))
        for j, picture in enumerate(row):
            axis = figure.add_axes(
                (
                    (j * width + 0.05) / total_width,
                    1.0 - (i * height + picture_height) / total_height,
                    SIDE / total_width,
                    SIDE / total_height,
                )
            )
            axis.axis('off')
            image = _visible(picture.image, bands).astype(np.float32)
            if picture.image.dtype != np.bool_:
                image = ((image - low) / (high - low)).clip(0.0, 1.0)
            axis.imshow(image, cmap='gray', vmin=0.0, vmax=1.0)
            axis.set_anchor('SW')
            title = ': '.join(filter(None, (picture.title, picture.fault)))
            colour = 'red' if picture.fault else f'C{j - 1}' if j else 'black'
            axis.set_title(title, fontsize=8, pad=3, color=colour)
            for number, view in enumerate(() if j else row[1:]):
                if view.box:
                    top, left, tall, wide = view.box
                    axis.add_patch(
                        Rectangle(
                            (left - 0.5, top - 0.5),
                            *(wide, tall),
                            fill=False,
                            color=f'C{number}',
                            clip_on=False,
                        )
                    )
            axis.text(
                0.0,
                -0.03,
                '\n'.join(texts[i][j]),
                transform=axis.transAxes,
                fontsize=5.5,
                verticalalignment='top',
            )
    figure.savefig(path, dpi=130)


def _visible(image: NDArray[Any], bands: Sequence[int]) -> NDArray[Any]:
    """Return H×W of one or two bands, H×W×3 of more."""
    if image.shape[-1] < 3:
        return image[..., 0]
    return image[..., list(bands)] if image.shape[-1] > 3 else image


def value_range(image: NDArray[Any]) -> tuple[Any, Any]:
    """Return what is black and what is white, for each band."""
    if image.dtype == np.uint8:
        return 0.0, 255.0
    flat = image.reshape(-1, image.shape[2] if image.ndim == 3 else 1)
    low, high = np.nanpercentile(flat.astype(np.float32), (2, 98), axis=0)
    if image.ndim == 2:
        low, high = low[0], high[0]
    return low, np.maximum(high, low + 1e-6)
