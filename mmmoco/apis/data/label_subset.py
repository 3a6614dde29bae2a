"""A part of every class."""

from collections.abc import Sequence

import torch

from mmmoco.functional import generator


def split_by_class(
    labels: Sequence[int], percent: float, seed: int
) -> tuple[list[int], list[int]]:
    """Return positions of a stratified part, and of the rest, in order.

    Args:
        labels: Class of every image.
        percent: Share of every class; at least one image of each.
        seed: Of the draw.

    Raises:
        ValueError: If the share is not between 0 and 100.
    """
    if not 0 < percent < 100:
        raise ValueError(f'--percent {percent:g}: use more than 0, below 100.')
    known = torch.tensor(labels)
    chosen = []
    for label in known.unique().tolist():
        there = (known == label).nonzero()[:, 0]
        draws = generator(seed, label, 'label subset')
        order = torch.randperm(len(there), generator=draws)
        count = max(1, round(len(there) * percent / 100))
        chosen += there[order[:count]].tolist()
    taken = set(chosen)
    rest = [i for i in range(len(known)) if i not in taken]
    return sorted(chosen), rest
