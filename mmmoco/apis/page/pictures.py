"""What the page shows of an image, its points, its map and its mask."""

from collections.abc import Sequence

import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from .prompting import Point

#: Smaller images are enlarged for the eye, by a whole factor.
SMALL_SIDE = 384

OUTLINE = (255, 214, 10)
ON, BESIDE = (20, 150, 70), (214, 40, 40)


def enlargement(pixels: NDArray[np.uint8]) -> int:
    """Return how many times a small image is enlarged on the page."""
    return max(1, SMALL_SIDE // max(pixels.shape[:2]))


def enlarged(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a small image with larger pixels."""
    times = enlargement(pixels)
    return pixels.repeat(times, axis=0).repeat(times, axis=1)


def segmented(
    pixels: NDArray[np.uint8], mask: NDArray[np.bool_], points: Sequence[Point]
) -> NDArray[np.uint8]:
    """Return the image with a mask outlined, the rest dimmed, and points."""
    times = enlargement(pixels)
    inside = enlarged(mask.astype(np.uint8))
    picture = enlarged(np.where(mask[..., None], pixels, pixels // 5 * 2))
    brush = np.ones((5, 5), np.uint8)
    # Outside the mask, so that it covers nothing of it.
    picture[cv2.dilate(inside, brush) > inside] = OUTLINE
    image = Image.fromarray(picture)
    drawing = ImageDraw.Draw(image)
    radius = max(7, min(image.size) // 40)
    for x, y, on in points:
        centre = (int((x + 0.5) * times), int((y + 0.5) * times))
        colour = ON if on else BESIDE
        drawing.circle(centre, radius, colour, 'white', 2)
        for dx, dy in ((1, 0), (0, 1))[: 1 + on]:  # Plus or minus.
            arm = radius // 2
            ends = [
                (c - arm * d, c + arm * d)
                for c, d in zip(centre, (dx, dy), strict=True)
            ]
            drawing.line(list(zip(*ends, strict=True)), 'white', 2)
    result: NDArray[np.uint8] = np.asarray(image)
    return result


def heat_map(found: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return similarities in colours, from the lowest one up to 1, H×W×3.

    Where there is none, it is grey.
    """
    lowest = lowest_of(found)
    scaled = (found - lowest) / (1.0 - lowest)
    colours = matplotlib.colormaps['viridis'].with_extremes(bad='0.55')
    result: NDArray[np.uint8] = colours(
        np.ma.masked_invalid(scaled), bytes=True
    )[..., :3]
    return result


def lowest_of(found: NDArray[np.float32]) -> float:
    """Return where a scale from the lowest similarity up to 1 begins."""
    finite = found[np.isfinite(found)]
    return min(float(finite.min(initial=1.0)), 0.99)


def dividing(found: NDArray[np.float32]) -> float:
    """Return the threshold that parts a map best, by Otsu's method."""
    lowest = lowest_of(found)
    span = 1.0 - lowest
    finite = found[np.isfinite(found)].clip(lowest, 1.0)
    levels = np.rint((finite - lowest) / span * 255).astype(np.uint8)
    level, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_OTSU)
    return lowest + (level + 0.5) / 255 * span  # Levels were rounded.
