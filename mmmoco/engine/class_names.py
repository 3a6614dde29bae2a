"""Which label of one data set is which of another: by name, or by number."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmmoco.messages import few, log_info, log_warning

#: So many names stand in a message.
SHOWN = 10


class Matching(NamedTuple):
    """How the labels of a second data set become those of the first.

    Attributes:
        numbers: For each class number of the second the one of the first;
            None: they are the same, as far as can be told.
        classes: Classes of the first; 0: not known beforehand.
        by_name: Whether names were compared.
        text: What was compared, in one line.
        differ: Whether a class stands on one side only.
    """

    numbers: tuple[int, ...] | None
    classes: int
    by_name: bool
    text: str
    differ: bool = False

    def apply(self, labels: Tensor) -> Tensor:
        """Return labels of the second data set in numbers of the first.

        Args:
            labels: N class indices, or N×L with 1 where a class is present.
        """
        if self.numbers is None or self.numbers == tuple(range(self.classes)):
            return labels
        numbers = torch.tensor(self.numbers, device=labels.device)
        if labels.dim() == 1:
            return numbers[labels]
        result = labels.new_zeros(len(labels), self.classes)
        result[:, numbers] = labels
        return result


def names_of(dataset: Any) -> tuple[str, ...]:
    """Return the names of a data set's classes by number; () without names.

    Where folders are the classes, their names: mmpretrain's ``ImageNet``
    tells a thousand fixed names, whatever folders it found.
    """
    return folder_names(dataset) or _told(dataset)


def match(
    first: Any, second: Any, places: tuple[str, str] = ('bank', 'query')
) -> Matching:
    """Compare the classes of two data sets, by name if both have names.

    Args:
        first: Data set whose numbers count.
        second: Data set whose labels are to be compared with them.
        places: What the two are called in messages.

    Raises:
        ValueError: If the second has a class that the first does not know.
    """
    names = names_of(first), names_of(second)
    told = _told(first), _told(second)
    if not set(names[0]) & set(names[1]) and told[0] and told[0] == told[1]:
        # Folders on one side, numbers of the same fixed names on the other.
        names = told
    return match_names(*names, places)


def match_names(
    first: Sequence[str],
    second: Sequence[str],
    places: tuple[str, str] = ('bank', 'query'),
) -> Matching:
    """Compare names of classes; see :func:`match`.

    Raises:
        ValueError: If the second has a class that the first does not know.
    """
    plain = [_is_count(names) for names in (first, second)]
    digits = all(name.isdigit() for name in (*first, *second))
    if not first or not second or all(plain) or (any(plain) and not digits):
        who = f'{places[plain.index(True)]} does not name'
        if all(plain):
            who = 'neither side names'
        text = f'Labels are compared by number, {who} its classes'
        return Matching(None, 0, False, text)
    number = {name: i for i, name in enumerate(first)}
    unknown = [name for name in second if name not in number]
    if unknown:
        raise ValueError(
            f'{places[1]} has {_counted(unknown)} that {places[0]} does not '
            f'know: {_listed(unknown)}. It has {_listed(first)}. Take both '
            'from the same data set (data_root, data_prefix), or remove '
            'those folders.'
        )
    lacking = [name for name in first if name not in set(second)]
    text = f'Labels are compared by name: {_counted(second)}'
    if lacking:
        text += (
            f' of {len(first)}; {places[1]} lacks {_counted(lacking)}: '
            f'{_listed(lacking)}'
        )
    return Matching(
        tuple(number[name] for name in second),
        len(first),
        True,
        text,
        bool(lacking),
    )


def folder_names(dataset: Any) -> tuple[str, ...]:
    """Return the folders that are the classes of mmpretrain's data set.

    () if its labels come from elsewhere: a list, or an archive.
    """
    folders = getattr(dataset, 'folder_to_idx', None) or {}
    return tuple(sorted(folders, key=folders.__getitem__))


def renumber(
    trained: Sequence[str], dataset: Any, places: tuple[str, str]
) -> None:
    """Let a data set of mmpretrain count its class folders as the training.

    Args:
        trained: Class folders of the training; () if it had none.
        dataset: Data set of a validation or a test.
        places: What the two are called in messages.

    Raises:
        ValueError: If it has a class that the training does not know.
    """
    own = folder_names(dataset)
    if not trained and not own:
        return  # Annotations, whose labels mean the same everywhere.
    matching = match_names(trained, own, places)
    log = log_warning if matching.differ else log_info
    log(f'{matching.text}.')
    if matching.numbers and matching.numbers != tuple(range(len(own))):
        dataset.get_data_info = _Renumbered(
            dataset.get_data_info, matching.numbers
        )


class _Renumbered:
    """``get_data_info`` of a data set, with other class numbers.

    A class and no closure: workers may have to be sent the data set.
    """

    def __init__(
        self, original: Callable[[int], dict[str, Any]], numbers: Sequence[int]
    ) -> None:
        self.original, self.numbers = original, numbers

    def __call__(self, index: int) -> dict[str, Any]:
        info = self.original(index)
        return {**info, 'gt_label': self.numbers[info['gt_label']]}


def _told(dataset: Any) -> tuple[str, ...]:
    told = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    if not told or isinstance(told, str):
        return ()
    return tuple(map(str, told))


def _is_count(names: Sequence[str]) -> bool:
    """Whether names only repeat the numbers, as those of a list do."""
    return list(names) == [str(i) for i in range(len(names))]


def _counted(names: Sequence[str]) -> str:
    return f'{len(names)} class{"" if len(names) == 1 else "es"}'


def _listed(names: Sequence[str]) -> str:
    return few([repr(name) for name in names], SHOWN)
