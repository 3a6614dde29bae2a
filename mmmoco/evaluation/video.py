"""Video object segmentation: labels that travel with the features.

The propagation is that of DINO's evaluation, the measures those of DAVIS
2017: region similarity J and contour accuracy F.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Mask = NDArray[np.bool_]


def propagate(
    frames: Iterable[Tensor],
    first: Tensor,
    context: int = 7,
    radius: int = 12,
    topk: int = 5,
    temperature: float = 0.1,
) -> Iterator[Tensor]:
    """Carry the labels of the first frame through a video.

    A patch takes the labels of the patches that are most similar to it in
    the first frame and the last ones, within a window around its own place.

    Args:
        frames: C×h×w features of each frame, the first one first.
        first: L×h×w labels of the first frame, one-hot or soft.
        context: How many of the last frames count beside the first.
        radius: Half the side of the window, in patches.
        topk: Sources that a patch takes labels from.
        temperature: Divides the cosines.

    Yields:
        L×h×w soft labels of each frame from the second on.
    """
    last: deque[tuple[Tensor, Tensor]] = deque(maxlen=context)
    origin: tuple[Tensor, Tensor] | None = None
    near: Tensor | None = None
    for frame in frames:
        unit = F.normalize(frame.float().flatten(1), dim=0)  # C×P
        if origin is None or near is None:
            origin = unit, first.flatten(1).to(unit)
            height, width = frame.shape[1:]
            near = _window(height, width, radius).to(unit.device)
            continue
        parts = [origin, *last]
        affinity = torch.cat(
            [
                (source.T @ unit / temperature).masked_fill(
                    ~near, float('-inf')
                )
                for source, _ in parts
            ]
        )  # sources×P
        count = min(topk, len(affinity))
        best = affinity.topk(count, dim=0)
        weight = best.values.softmax(0)
        sources = torch.cat([labels for _, labels in parts], dim=1)
        labels = (sources[:, best.indices] * weight).sum(1)  # L×P
        last.append((unit, labels))
        yield labels.view(len(first), *frame.shape[1:])


def _window(height: int, width: int, radius: int) -> Tensor:
    """P×P, True where two patches are close in rows and in columns."""
    rows = torch.arange(height).repeat_interleave(width)
    columns = torch.arange(width).repeat(height)
    near_rows = (rows[:, None] - rows[None]).abs() <= radius
    return near_rows & ((columns[:, None] - columns[None]).abs() <= radius)


def to_index(labels: Tensor, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Turn soft labels into an index image.

    Upsampled bilinearly, every label stretched to [0, 1], then the largest.

    Args:
        labels: L×h×w, 0 is the background.
        size: (H, W) of the result.
    """
    maps = F.interpolate(
        labels[None].float(), size, mode='bilinear', align_corners=False
    )[0]
    low = maps.amin((1, 2), keepdim=True)
    high = maps.amax((1, 2), keepdim=True)
    stretched = torch.where(high > 0, (maps - low) / (high - low), maps)
    index: NDArray[np.uint8] = (
        stretched.nan_to_num(0.0).argmax(0).to(torch.uint8).cpu().numpy()
    )
    return index


def region_similarity(found: Mask, truth: Mask) -> float:
    """Return J: intersection over union; 1 if both are empty."""
    union = np.count_nonzero(found | truth)
    if union == 0:
        return 1.0
    return np.count_nonzero(found & truth) / union


def contour(mask: Mask) -> Mask:
    """Return the pixels of a mask where it meets something else.

    A pixel is on the contour if its right, lower or lower right neighbour
    differs, as DAVIS has it; the edge of the image is none.
    """
    result = np.zeros_like(mask)
    right, below = mask[:, 1:] != mask[:, :-1], mask[1:] != mask[:-1]
    result[:, :-1] |= right
    result[:-1] |= below
    result[:-1, :-1] |= mask[1:, 1:] != mask[:-1, :-1]
    return result


def contour_accuracy(
    found: Mask, truth: Mask, tolerance: float = 0.008
) -> float:
    """Return F: the harmonic mean of the contours' precision and recall.

    A contour pixel is right if the other contour passes within the
    tolerance.

    Args:
        found: H×W.
        truth: H×W.
        tolerance: As a fraction of the image's diagonal, rounded up to
            pixels.
    """
    from scipy.ndimage import distance_transform_edt

    own, other = contour(found), contour(truth)
    if not (own.any() and other.any()):
        return float(own.any() == other.any())  # 1 if both are empty.
    reach = math.ceil(tolerance * math.hypot(*found.shape))
    near_other = distance_transform_edt(~other) <= reach
    near_own = distance_transform_edt(~own) <= reach
    precision = np.count_nonzero(own & near_other) / np.count_nonzero(own)
    recall = np.count_nonzero(other & near_own) / np.count_nonzero(other)
    if precision + recall == 0.0:
        return 0.0
    return 2 * precision * recall / (precision + recall)


class VideoScores(NamedTuple):
    """Means over the frames of each object, in [0, 1].

    Attributes:
        j: By object.
        f: By object.
    """

    j: list[float]
    f: list[float]


def score_video(
    found: NDArray[np.uint8], truth: NDArray[np.uint8]
) -> VideoScores:
    """Compare index images; the first and the last frame do not count.

    Args:
        found: T×H×W.
        truth: T×H×W; the objects are those of its first frame.

    Raises:
        ValueError: If the shapes differ, or no frame is left.
    """
    if found.shape != truth.shape or len(truth) < 3:
        raise ValueError(
            f'Videos of {found.shape} and {truth.shape}: they must be equal, '
            'and at least three frames.'
        )
    j, f = [], []
    for value in np.unique(truth[0]):
        if value in (0, 255):
            continue
        pairs = [
            (a == value, b == value)
            for a, b in zip(found[1:-1], truth[1:-1], strict=True)
        ]
        j.append(float(np.mean([region_similarity(*p) for p in pairs])))
        f.append(float(np.mean([contour_accuracy(*p) for p in pairs])))
    return VideoScores(j, f)
