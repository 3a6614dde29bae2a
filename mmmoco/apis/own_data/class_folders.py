"""Folders that are classes."""

import os
from dataclasses import dataclass
from pathlib import Path

from mmmoco.files import files_below, lines_of
from mmmoco.messages import few, shortened

from .labels import Labels

#: What mmpretrain takes for an image.
_EXTENSIONS = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif')


@dataclass
class ClassFolders(Labels):
    """What a folder holds.

    Attributes:
        files: Of each class, as in ``names``.
        plain: Whether mmpretrain would find just these classes and images.
    """

    files: dict[str, list[str]]
    plain: bool

    def text(self, classes: tuple[str, ...]) -> str | None:
        """Return the list of images; None if the folders serve.

        Args:
            classes: By number, those of the training.
        """
        if self.plain and tuple(self.files) == classes:
            return None
        return lines_of(
            f'{name} {classes.index(label)}'
            for label, names in self.files.items()
            for name in names
        )


def read_folders(folder: str) -> ClassFolders:
    """List class folders and their images.

    Raises:
        OSError: If a folder cannot be listed.
        ValueError: If there are fewer than two classes.
    """
    files, others, complete = {}, [], True
    for name in sorted(os.listdir(folder)):
        place = Path(folder, name)
        if not place.is_dir():
            continue
        found = files_below(place, _EXTENSIONS)
        if name.startswith('.') or not found.paths:
            others.append(name)
            continue
        complete &= found.complete
        files[name] = [os.path.relpath(p, folder) for p in found.paths]
    if len(files) < 2:
        raise ValueError(
            f'{folder!r} has {len(files)} folders with images; it needs one '
            'for each class, and two classes.'
        )
    every = [name for names in files.values() for name in names]
    result = ClassFolders(folder, every, files, complete and not others)
    result.remarks.append(f'{len(every):,} images of {len(files)} classes')
    if others:
        shown = few([shortened(name, 60) for name in others])
        result.remarks.append(f'folders without images left out: {shown}')
    return result


def require_known(val: ClassFolders, train: ClassFolders) -> None:
    """See that a second folder has no class that the first lacks.

    Raises:
        ValueError: If it does.
    """
    other = [name for name in val.files if name not in train.files]
    if other:
        raise ValueError(
            f'{val.folder!r} has classes that {train.folder!r} does not know: '
            f'{few([shortened(name, 60) for name in other])}.'
        )
    lacking = [name for name in train.files if name not in val.files]
    if lacking:
        shown = few([shortened(name, 60) for name in lacking])
        val.remarks.append(f'no images of {shown}')
