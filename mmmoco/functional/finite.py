"""Where weights hold values that are no numbers."""

from collections.abc import Mapping

import torch
from torch import Tensor


def first_not_finite(weights: Mapping[str, Tensor]) -> str | None:
    """Return the name of the first tensor with NaN or infinity in it.

    Args:
        weights: By name; what has no values (device ``meta``) passes.
    """
    for name, value in weights.items():
        if not value.is_meta and not bool(torch.isfinite(value).all()):
            return name
    return None
