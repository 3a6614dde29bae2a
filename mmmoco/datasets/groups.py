"""Which samples show the same thing: a place, a patient, a video, a scene.

A group is known by its name. Its number depends on nothing else, so that all
processes, and a run that is resumed with more data, agree on it.
"""

from collections.abc import Iterable
from functools import cache
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

from mmmoco.functional import derive_seed

#: Number of what is in no group, and the names of none: of what has no name,
#: of noise among clusters, of an empty field in a column of numbers.
NONE, NO_NAMES = -1, ('', '-1', '-1.0', 'nan')

#: How to name a group: so many folders of the path, or a column.
GroupBy = int | str | None


def group_number(name: Any) -> int:
    """Return the number of a group; −1 for a name of none, or None."""
    text = '' if name is None else str(name).strip()
    return NONE if text in NO_NAMES else derive_seed(0, text, 'group')


def group_numbers(names: Iterable[Any]) -> npt.NDArray[np.int64]:
    """Return the number of each name's group."""
    number = cache(group_number)
    return np.fromiter(map(number, names), np.int64)


def folder_of(path: str, group_by: int) -> str:
    """Return the folders of a path that name its group; '': none do.

    Args:
        path: Below the folder of the data.
        group_by: How many of its folders: 1 the first one, 2 the first two,
            −1 all of them, −2 all but the innermost.

    Raises:
        ValueError: If it is 0.
    """
    if group_by == 0:
        raise ValueError(
            'group_by=0 names no folder: use 1 for the first one below the '
            'data, 2 for the first two, or -1 for the one that an image '
            'lies in.'
        )
    folders = PurePath(path).parts[:-1]
    deep = group_by if group_by > 0 else len(folders) + 1 + group_by
    return '/'.join(folders[:deep]) if 0 < deep <= len(folders) else ''
