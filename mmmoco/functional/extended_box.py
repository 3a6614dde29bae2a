"""The blur that PIL calls Gaussian: a box, three times.

Its variance is σ² exactly, however small σ is. The values of a Gaussian at
whole pixels have a smaller one: below σ = 0.4 nearly none is left.
"""

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

Number = TypeVar('Number', float, Tensor)

#: How often the box is applied.
PASSES = 3


def extended_box(sigma: Number) -> tuple[Number, Number]:
    """Return the box of which three passes have the variance σ².

    A box of 2·reach + 1 pixels, and on each side one more pixel that counts
    by a fraction (Gwosdek et al., Theoretical Foundations of Gaussian
    Convolution by Extended Box Filtering, 2011).

    Args:
        sigma: Standard deviation in pixels.

    Returns:
        reach and fraction; the box is not normalised.
    """
    variance = sigma * sigma / PASSES
    reach = ((12.0 * variance + 1.0) ** 0.5 - 1.0) // 2.0
    missing = reach * (reach + 1.0) - 3.0 * variance
    fraction = (2.0 * reach + 1.0) * missing
    return reach, fraction / (6.0 * (variance - (reach + 1.0) ** 2))


def blur_radius(sigma: float) -> int:
    """Return how many pixels away the three passes reach."""
    return PASSES * (int(extended_box(sigma)[0]) + 1)


def blur_taps(sigma: Tensor, radius: int) -> Tensor:
    """Return the three passes as one filter for each σ: N×(2·radius + 1).

    Args:
        sigma: N standard deviations in pixels.
        radius: At least :func:`blur_radius` of the largest.
    """
    reach, fraction = extended_box(sigma[:, None])
    away = torch.arange(-radius, radius + 1, device=sigma.device).abs()
    box = (away <= reach) + (away == reach + 1.0) * fraction
    box = box / box.sum(1, keepdim=True)
    taps = box
    for _ in range(PASSES - 1):
        # One group for each σ; the box is its own mirror image.
        taps = F.conv1d(
            taps[None], box[:, None], padding=radius, groups=len(box)
        )[0]
    return taps
