import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmmoco.files import Listing, files_below
from mmmoco.messages import shortened
from mmmoco.registry import DATASETS

from .addressed import AddressedDataset
from .groups import GroupBy, folder_of, group_numbers
from .image_lists import by_name, read_list
from .value_range import check_ranges

EXTENSIONS = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')


@DATASETS.register_module()
class ImageFolderDataset(AddressedDataset):
    """Images of a folder: ImageNet's layout, any other, or a list of paths.

    Without ``ann_file`` every image below ``data_root/data_prefix`` is taken,
    however deep it lies, in sorted order; each folder once, however many
    links lead to it. What begins with a dot is left out, and counted. With
    ``with_labels`` the folders directly below are the classes, as in
    ImageNet.

    Args:
        data_root: Folder of the images.
        data_prefix: Sub-folder, for example ``'train'``; left out if it does
            not exist and ``prefix_optional`` is set.
        ann_file: List of paths, relative to the folder above or absolute:
            text with one path a line, which may be followed by a space and a
            label; CSV with a header; or OpenMMLab's JSON. Relative to
            ``data_root``.
        with_labels: Give every sample a class.
        prefix_optional: Take ``data_root`` itself if it has no
            ``data_prefix``: one config then serves ImageNet and any folder.
        extensions: Which files are images, in lower case.
        pipeline: Configs of transforms.
        include: Patterns, one of which must fit a path below the folder, or
            a name in it (``['*_image.tif']``, ``['train/*']``); none: all.
        exclude: Patterns of what is left out (``['*_mask.tif', 'masks']``).
        group_by: What names the group of an image (see ``exclude`` of the
            dictionaries): a column of ``ann_file``; or so many folders of
            its path below ``data_root/data_prefix``: 1 the first one, 2 the
            first two, −1 all, −2 all but the innermost.

    Raises:
        FileNotFoundError: If the folder does not exist or holds no image.
        OSError: If a folder below cannot be listed.
        ValueError: If a label is missing, or a list is of no known kind.
    """

    def __init__(
        self,
        data_root: str,
        data_prefix: str = '',
        ann_file: str = '',
        with_labels: bool = False,
        prefix_optional: bool = False,
        extensions: Sequence[str] = EXTENSIONS,
        pipeline: Sequence[dict[str, Any]] = (),
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        group_by: GroupBy = None,
    ) -> None:
        super().__init__(pipeline)
        self.extensions = tuple(e.lower() for e in extensions)
        self.patterns = (_listed(include), _listed(exclude))
        self.with_labels = with_labels
        root = Path(data_root).expanduser()
        if not root.is_dir():
            raise FileNotFoundError(
                f'data_root {str(data_root)!r} does not exist or is no '
                'folder. Set it to the folder with your images, for example '
                '--cfg-options train_dataloader.dataset.data_root=/my/images '
                '(relative paths count from the current folder, '
                f'{os.getcwd()!r}).'
            )
        folder = root / data_prefix
        if prefix_optional and not folder.is_dir():
            folder = root
        column = group_by if isinstance(group_by, str) else ''
        if ann_file:
            self._read_list(root / ann_file, folder, column)
        elif column:
            raise ValueError(
                f'group_by={column!r} is a column of ann_file, but there is '
                'none: give a list with that column, or a number of folders.'
            )
        else:
            self._scan(folder)
        if isinstance(group_by, int):
            below = (os.path.relpath(path, folder) for path in self.paths)
            self.groups = group_numbers(folder_of(p, group_by) for p in below)
        self.grouped = self.groups is not None
        check_ranges(self)

    def _scan(self, folder: Path) -> None:
        found = Listing()
        if folder.is_dir():
            found = files_below(folder, self.extensions, *self.patterns)
            found.report(folder)
        if not found.paths:
            raise FileNotFoundError(
                f'No image in {str(folder)!r} or below it. Looked for files '
                f'that end with {", ".join(self.extensions)}, at any depth. '
                f'{_left_out(len(found.unmatched))}'
                'Set data_root (and data_prefix) to the folder that holds '
                'them, or extensions to their endings.'
            )
        self.paths: list[str] = found.paths
        self.labels: list[int] | None = None
        self.classes: tuple[str, ...] = ()
        if self.with_labels:
            names = [Path(p).relative_to(folder).parts[0] for p in self.paths]
            flat = [p for p in self.paths if Path(p).parent == folder]
            if flat:
                raise ValueError(
                    f'{flat[0]!r} lies in no class folder. Labels are taken '
                    f'from the folders directly below {str(folder)!r} '
                    '(<class>/<image>); set with_labels=False, or ann_file '
                    'to a list of "path label" lines.'
                )
            self.labels, self.classes = by_name(names)

    def _read_list(self, file: Path, folder: Path, group_by: str) -> None:
        if not file.is_file():
            raise FileNotFoundError(
                f'ann_file {str(file)!r} does not exist. It is a text file '
                'with one image path a line, relative to '
                f'{str(folder)!r} or absolute.'
            )
        listed = read_list(file, folder, self.with_labels, group_by)
        self.paths = [os.path.join(folder, name) for name in listed.names]
        self.labels, self.classes = listed.labels, listed.classes
        if group_by:
            self.groups = group_numbers(listed.groups or ())
        if not os.path.lexists(self.paths[0]):
            raise FileNotFoundError(
                f'{str(file)!r} lists {shortened(listed.names[0])}, but '
                f'{shortened(self.paths[0])} does not exist. Paths count '
                f'from {str(folder)!r}: set data_root and data_prefix to fit.'
            )

    def __len__(self) -> int:
        """Number of images."""
        return len(self.paths)

    def sample(self, index: int) -> dict[str, Any]:
        """Return path, position and, with labels, class of an image."""
        result: dict[str, Any] = {
            'img_path': self.paths[index],
            'sample_idx': index,
        }
        if self.labels is not None:
            result['gt_label'] = self.labels[index]
        if self.groups is not None:
            result['group'] = int(self.groups[index])
        return result

    def name_of(self, index: int) -> str:
        """Return the path of an image."""
        return self.paths[index]


def _left_out(count: int) -> str:
    return f'{count} are left out by include or exclude. ' if count else ''


def _listed(patterns: str | Sequence[str]) -> tuple[str, ...]:
    """Return patterns; a single one may be given as it is."""
    return (patterns,) if isinstance(patterns, str) else tuple(patterns)
