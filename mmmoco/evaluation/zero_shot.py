"""Zero-shot segmentation: one prompted patch, one threshold (2308.11448).

A patch of an object is the prompt; what is as similar to it as a threshold
asks is the object. Arrays in, numbers out; nothing here knows a model.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from mmmoco.functional import derive_seed

#: Similarities are told apart to 1 / STEPS.
STEPS = 1000

#: The paper varies T between 0 and 0.3.
THRESHOLDS = tuple(i / 100 for i in range(101))
FIXED = (0.1, 0.2, 0.3)


class ObjectScores(NamedTuple):
    """How well similarity maps segment their objects.

    Attributes:
        ious: Q×T, intersection over union at each threshold.
        ap: Q, average precision of the pixels, free of any threshold.
    """

    ious: Tensor
    ap: Tensor


def central_point(mask: NDArray[np.bool_]) -> tuple[int, int]:
    """Return the pixel (y, x) of a mask that is farthest from its edge.

    The edge of the image counts as an edge of the mask.

    Args:
        mask: H×W, with at least one pixel.
    """
    from scipy.ndimage import distance_transform_edt

    distance = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(distance.argmax()), mask.shape)
    return int(y), int(x)


def random_points(
    mask: NDArray[np.bool_], count: int, seed: int, *address: int | str
) -> list[tuple[int, int]]:
    """Return ``count`` pixels (y, x) of a mask, drawn with replacement.

    Args:
        mask: H×W, with at least one pixel.
        count: Number of points.
        seed: Seed of all draws.
        *address: Which object it is.
    """
    draws = np.random.default_rng(derive_seed(seed, *address, 'prompts'))
    pixels = np.argwhere(mask)
    chosen = pixels[draws.integers(len(pixels), size=count)]
    return [(int(y), int(x)) for y, x in chosen]


def similarity_maps(
    tokens: Tensor,
    points: Sequence[tuple[int, int]],
    size: tuple[int, int],
    upsample: str = 'bilinear',
) -> Tensor:
    """Return the cosine of every prompted patch with all, Q×H×W.

    Args:
        tokens: C×h×w, the patch tokens of one image.
        points: Q pixels (y, x) of the image in its own size.
        size: That size, (H, W).
        upsample: ``'bilinear'`` or ``'nearest'``.
    """
    height, width = size
    rows, columns = tokens.shape[1:]
    unit = F.normalize(tokens.float(), dim=0)
    down, across = _patches(rows, height), _patches(columns, width)
    y = torch.tensor([down[p[0]] for p in points])
    x = torch.tensor([across[p[1]] for p in points])
    prompts = unit[:, y.to(unit.device), x.to(unit.device)]  # C×Q
    maps = torch.einsum('cq,chw->qhw', prompts, unit)
    if upsample == 'nearest':
        # PyTorch's own takes the corners of pixels, not their centres.
        return maps[:, down][:, :, across]
    return F.interpolate(maps[None], size, mode=upsample, align_corners=False)[
        0
    ]


def _patches(patches: int, pixels: int) -> list[int]:
    """Return, for each pixel of a side, the patch its centre lies in."""
    return [(2 * p + 1) * patches // (2 * pixels) for p in range(pixels)]


def score_objects(
    maps: Tensor, masks: Tensor, thresholds: Sequence[float] = THRESHOLDS
) -> ObjectScores:
    """Compare maps with masks at all thresholds in one pass.

    A pixel belongs to the object where its similarity is above T. One
    histogram of the similarities, inside the mask and in all, gives every
    threshold at once, and the average precision to 1 / ``STEPS``.

    Args:
        maps: Q×H×W cosines.
        masks: Q×H×W, True on the object, each with at least one pixel.
        thresholds: Multiples of 1 / ``STEPS`` in [−1, 1].

    Raises:
        ValueError: If a mask is empty.
    """
    masks = masks.flatten(1)
    area = masks.sum(1)
    if not bool((area > 0).all()):
        raise ValueError('An object without a pixel cannot be scored.')
    bins = 2 * STEPS + 1
    # Bin b holds the similarities above (b − 1) / STEPS − 1, up to and with
    # b / STEPS − 1. What is above T lies in the bins after the one of T.
    level = ((maps.flatten(1) + 1.0) * STEPS).ceil().clamp(0, bins - 1)
    row = torch.arange(len(maps), device=maps.device)[:, None] * bins
    place = level.long() + row

    def above(places: Tensor) -> Tensor:
        """How many pixels lie in a bin or beyond it, Q×(bins + 1)."""
        counts = torch.bincount(places, minlength=len(maps) * bins)
        counts = F.pad(counts.view(len(maps), bins), (0, 1))
        return counts.flip(1).cumsum(1).flip(1)

    found, hit = above(place.flatten()), above(place[masks])
    at = torch.tensor(
        [round((t + 1.0) * STEPS) + 1 for t in thresholds], device=maps.device
    )
    union = found[:, at] + area[:, None] - hit[:, at]
    ious = hit[:, at] / union
    precision = hit / found.clamp(min=1)
    recall = hit / area[:, None]
    ap = ((recall[:, :-1] - recall[:, 1:]) * precision[:, :-1]).sum(1)
    return ObjectScores(ious, ap)


class ZeroShotResult(NamedTuple):
    """The figures of a data set.

    Attributes:
        metrics: In percent (thresholds as they are). ``…_objects`` is the
            mean over objects, ``…_classes`` the mean over the classes'
            means.
        curve: Threshold → mIoU over objects and over classes, percent.
    """

    metrics: dict[str, float]
    curve: Mapping[float, tuple[float, float]]


def summarise(
    ious: Tensor,
    ap: Tensor,
    classes: Sequence[int],
    images: Sequence[int],
    thresholds: Sequence[float] = THRESHOLDS,
    fixed: Sequence[float] = FIXED,
    seed: int = 0,
) -> ZeroShotResult:
    """Average over objects and classes, and choose thresholds.

    ``miou_t0.2_…``: at a threshold fixed beforehand. ``miou_held_out_…``: T
    (``t_held_out``) is the best one of a random half of the images, the
    figure that of the other half. ``miou_oracle_…``: the best of all T
    (``t_oracle``) on all images, which only the answers tell: an upper
    bound, not a result.

    Args:
        ious: N×T, by object.
        ap: N.
        classes: N class indices.
        images: N image indices.
        thresholds: T of the columns.
        fixed: Thresholds to report, among ``thresholds``.
        seed: Seed of the halves.

    Raises:
        ValueError: If there are no two images.
    """
    names = sorted(set(images))
    if len(names) < 2:
        raise ValueError(
            f'{len(names)} images with objects: T is chosen on a half of '
            'them, so that two are the least.'
        )
    ious, ap = ious.cpu().double(), ap.cpu().double()
    label = torch.tensor(classes)
    order = np.random.default_rng(derive_seed(seed, 'halves'))
    chosen = set(order.permutation(names)[: len(names) // 2].tolist())
    first = torch.tensor([image in chosen for image in images])
    every = torch.ones_like(first)

    def means(values: Tensor, rows: Tensor) -> Tensor:
        """Over objects and over classes, 2 or 2×T, of N or N×T values."""
        values, own = values[rows], label[rows]
        by_class = [values[own == c].mean(0) for c in own.unique()]
        over_classes = torch.stack(by_class).mean(0)
        return torch.stack([values.mean(0), over_classes])

    metrics: dict[str, float] = {}

    def add(name: str, pair: Tensor) -> None:
        objects, by_class = (100.0 * pair).tolist()
        metrics[f'{name}_objects'] = objects
        metrics[f'{name}_classes'] = by_class

    listed, miou = list(thresholds), means(ious, every)
    for t in fixed:
        add(f'miou_t{t:g}', miou[:, listed.index(t)])
    best = int(means(ious, first)[0].argmax())
    metrics['t_held_out'] = listed[best]
    add('miou_held_out', means(ious, ~first)[:, best])
    best = int(miou[0].argmax())
    metrics['t_oracle'] = listed[best]
    add('miou_oracle', miou[:, best])
    add('ap', means(ap, every))
    pairs = zip(*(100.0 * miou).tolist(), strict=True)
    return ZeroShotResult(metrics, dict(zip(listed, pairs, strict=True)))
