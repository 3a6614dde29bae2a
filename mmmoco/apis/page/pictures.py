"""What the page shows of an image, its map and its mask."""

from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mmmoco.visualization.similarity import keep_mask

#: Smaller images are enlarged for the eye, by a whole factor.
SMALL_SIDE = 384


def segmented(
    pixels: NDArray[np.uint8], found: NDArray[np.float32], threshold: float
) -> tuple[NDArray[np.uint8], str]:
    """Return the image with all but the mask darkened, and what it is."""
    mask = found > threshold
    text = (
        f'{mask.mean():.1%} of the image lies above {threshold:g}; the '
        f'similarities go from {found.min():.2f} to {found.max():.2f}.'
    )
    return enlarged(keep_mask(pixels, mask)), text


def enlargement(pixels: NDArray[np.uint8]) -> int:
    """Return how many times a small image is enlarged on the page."""
    return max(1, SMALL_SIDE // max(pixels.shape[:2]))


def enlarged(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a small image with larger pixels."""
    times = enlargement(pixels)
    return pixels.repeat(times, axis=0).repeat(times, axis=1)


def heat_map(found: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return similarities in colours, from the lowest one up to 1, H×W×3."""
    lowest = float(found.min())
    scaled = (found - lowest) / max(1.0 - lowest, 1e-6)
    colours = matplotlib.colormaps['viridis'](scaled, bytes=True)
    result: NDArray[np.uint8] = colours[..., :3]
    return result


def with_cross(pixels: NDArray[np.uint8], x: int, y: int) -> Any:
    """Return the image with a cross at a point."""
    image = Image.fromarray(pixels)
    drawing = ImageDraw.Draw(image)
    arm = max(3, min(image.size) // 24)
    for colour, width in (('white', 3), ('red', 1)):
        drawing.line((x - arm, y, x + arm, y), colour, width)
        drawing.line((x, y - arm, x, y + arm), colour, width)
    return np.asarray(image)
