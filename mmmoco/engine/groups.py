"""Groups of the data held against dictionaries that exclude by them."""

from typing import Any

import numpy as np


def describe_groups(dataset: Any) -> str:
    """Say how many groups there are, and what excluding them leaves out.

    Args:
        dataset: Of the training.

    Raises:
        ValueError: If it has none, or one group holds everything.
    """
    who = type(dataset).__name__
    if not getattr(dataset, 'grouped', True):
        raise ValueError(
            f"exclude='group' needs a data set that says them, but {who} was "
            'given no group_by: set train_dataloader.dataset.group_by, or '
            "dictionary.exclude='image'."
        )
    numbers = getattr(dataset, 'groups', None)
    if numbers is None:
        return f"exclude='group': {who} says groups as it is read."
    images, known = len(numbers), numbers[numbers >= 0]
    _, sizes = np.unique(known, return_counts=True)
    if not len(sizes):
        raise ValueError(
            f"exclude='group', but none of the {images:,} images is in a "
            'group: set train_dataloader.dataset.group_by to what names one.'
        )
    largest, alone = int(sizes.max()), images - len(known)
    if largest == images:
        raise ValueError(
            f"exclude='group', but all {images:,} images are of one group: "
            'no query would have a negative. Set train_dataloader.dataset.'
            'group_by to something finer.'
        )
    share = float(((sizes / images) ** 2).sum())
    text = (
        f"exclude='group': {len(known):,} images in {len(sizes):,} groups, "
        f'the largest of {largest:,}'
    )
    if alone:
        text += f', and {alone:,} in none'
    return (
        f'{text}. About {share:.2%} of the negatives are left out, of the '
        f'largest group {largest / images:.2%}.'
    )
