"""Images that show the same thing, found by their features."""

import csv
import io
import os
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from numpy.typing import NDArray
from torch import Tensor

from mmmoco.apis.cli import UsageError
from mmmoco.datasets.transforms.loading import LoadRGB
from mmmoco.engine import checkpoint_io
from mmmoco.engine.checkpoint_io.writing import replace
from mmmoco.files import open_regular
from mmmoco.functional import nearest
from mmmoco.messages import log_warning, printable, shortened
from mmmoco.progress import track
from mmmoco.visualization.views import ViewPicture, draw_views

from .extract_features import Part, features_of, loader_settings

#: Thresholds that are tried beside the one that was asked for.
TRIED = (0.99, 0.98, 0.95, 0.9, 0.8)

#: Queries that are compared with all images at once.
_AT_ONCE = 4096

#: Of the picture: groups, images of each, and pixels of a side.
_ROWS, _COLUMNS, _SIDE = 8, 8, 192


@dataclass(frozen=True)
class Duplicates:
    """What was found.

    Attributes:
        images: How many were compared.
        threshold: Least cosine similarity of two near-duplicates.
        groups: Images of each group of several, the largest first.
        out: List of all images with their groups.
        kept: List of one image of each group.
        picture: Of the largest groups; None: there is none.
        tried: For each threshold, the groups of several and their images.
    """

    images: int
    threshold: float
    groups: tuple[int, ...]
    out: str
    kept: str
    picture: str | None
    tried: dict[float, tuple[int, int]]

    def __str__(self) -> str:
        """Say what was found, and what other thresholds would find."""
        lines = ['threshold  groups of several  images in them']
        for threshold, (groups, images) in self.tried.items():
            mark = '  <' if threshold == self.threshold else ''
            lines.append(f'{threshold:9g}  {groups:17,}  {images:14,}{mark}')
        spare = sum(self.groups) - len(self.groups)
        files = ', '.join(filter(None, (self.out, self.kept, self.picture)))
        lines.append(
            f'{self.images:,} images, {spare:,} of which are near-duplicates '
            f'of another one; written: {files}'
        )
        return '\n'.join(lines)


def from_model(
    cfg: Config,
    checkpoint: str,
    folder: str,
    size: int | None,
    place: str,
    patterns: Mapping[str, Sequence[str]],
) -> tuple[Tensor, list[str]]:
    """Return features of the images of a folder, and their paths.

    Args:
        cfg: Config of the model.
        checkpoint: File with its weights.
        folder: Of the images, at any depth.
        size: Side of what the network sees; None: the config's.
        place: Folder for a file that holds the features while they are used.
        patterns: Of the images' files.
    """
    settings = loader_settings(cfg, 'bank', folder, size, patterns)
    settings['dataset']['with_labels'] = False
    found, dataset, _ = features_of(
        cfg, checkpoint, settings, Part('gap'), place
    )
    return found.values, [dataset.paths[i] for i in found.ids.tolist()]


def from_file(file: str) -> tuple[Tensor, list[str]]:
    """Return features and paths that ``mmmoco features`` wrote.

    Raises:
        OSError: If it cannot be read.
        ValueError: If it holds no features of images with paths.
    """
    try:
        with (
            open_regular(file) as stream,
            np.load(stream, allow_pickle=False) as stored,
        ):
            features, paths = stored['features'], stored['paths']
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f'--features {file}: no features and paths of images '
            f'({shortened(str(error))}): write it with mmmoco features '
            '--data DIR --out FILE.npz.'
        ) from error
    shape, kind = features.shape, features.dtype.kind
    if (
        len(shape) != 2
        or not shape[1]
        or kind != 'f'
        or paths.shape != shape[:1]
    ):
        raise ValueError(
            f'--features {file}: {features.dtype} numbers of shape {shape} '
            f'and {paths.shape} paths; needed are N×C of one vector an image '
            '(without --tokens patch or all) and N.'
        )
    # Whatever kind of float and byte order the file has.
    values = torch.from_numpy(features.astype(np.float32, copy=False))
    return values, [str(path) for path in paths]


def find(
    features: Tensor, threshold: float, neighbours: int
) -> dict[float, NDArray[np.int32]]:
    """Group images of which each is near to another one of its group.

    Beside the features, which may lie in a file, the memory holds a part of
    the similarities and the pairs that are near.

    Args:
        features: N×C.
        threshold: Least cosine similarity of two that are near.
        neighbours: Of each image that are looked at.

    Returns:
        For each threshold the group of every image, numbered.

    Raises:
        ValueError: If a feature is not finite.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(features)
    tried = sorted({threshold, *TRIED}, reverse=True)
    pairs: list[NDArray[np.int64]] = []
    near: list[NDArray[np.float32]] = []
    starts = range(0, count, _AT_ONCE)
    for start in track(starts, 'Parts compared with all images'):
        part = features[start : start + _AT_ONCE]
        if not part.isfinite().all():
            raise ValueError(
                f'The features of images {start} to {start + len(part) - 1} '
                'are not all finite: the weights or the file are damaged.'
            )
        found = nearest(features, part, min(neighbours + 1, count))
        rows, columns = (found.similarity >= tried[-1]).nonzero(as_tuple=True)
        ends = found.indices[rows, columns]
        pairs.append(torch.stack([rows + start, ends]).numpy())
        near.append(found.similarity[rows, columns].numpy())
    joined, similarity = np.concatenate(pairs, 1), np.concatenate(near)
    numbered = {}
    for each in tried:
        edges = joined[:, similarity >= each]
        ones = np.ones(edges.shape[1], bool)
        graph = coo_array((ones, tuple(edges)), (count, count))
        _, numbered[each] = connected_components(graph, directed=False)
    return numbered


def write(
    folder: str,
    paths: Sequence[str],
    numbered: dict[float, NDArray[np.int32]],
    threshold: float,
    out: str,
) -> Duplicates:
    """Write the lists and the picture.

    Args:
        folder: That the paths of the lists count from.
        paths: Of the images.
        numbered: Result of :func:`find`.
        threshold: Whose groups are written.
        out: List of all images; the others stand beside it.

    Raises:
        UsageError: If an image does not lie in the folder.
    """
    names = [_below(path, folder) for path in paths]
    of = numbered[threshold]
    order = np.argsort(of, kind='stable')
    members = np.split(order, np.cumsum(np.bincount(of))[:-1])
    members.sort(key=len, reverse=True)  # Stable: then as they are listed.
    rows: dict[int, tuple[str, str, int]] = {}
    kept = []
    for group in members:
        of_list = [i for i in group.tolist() if _fits_a_list(names[i])]
        first = names[of_list[0]] if of_list else ''
        rows |= {i: (names[i], first, len(group)) for i in group.tolist()}
        kept.append(max(of_list or group, key=lambda i: _bytes(paths[i])))
    _write_list(out, [rows[i] for i in range(len(names))])
    stem = Path(out).with_suffix('')
    unique = f'{stem}_kept.csv'
    _write_list(unique, [rows[i] for i in sorted(kept)])
    several = [group for group in members if len(group) > 1]
    picture = f'{stem}.png' if several else None
    if picture is not None:
        grid = [
            [_picture(i, paths, rows[i], place) for place, i in enumerate(row)]
            for row in (g.tolist()[:_COLUMNS] for g in several[:_ROWS])
        ]
        replace(picture, lambda file: draw_views(file, grid))
    tried = {}
    for each, number in numbered.items():
        sizes = np.bincount(number)
        sizes = sizes[sizes > 1]
        tried[each] = (len(sizes), int(sizes.sum()))
    largest = len(members[0])
    if largest > max(2, len(names) // 10):
        log_warning(
            f'The largest group holds {largest:,} of {len(names):,} images: '
            'chains of images that are only alike join what is different. '
            'Look at the picture, and raise --threshold.'
        )
    sizes_of = tuple(len(group) for group in several)
    return Duplicates(
        len(names), threshold, sizes_of, out, unique, picture, tried
    )


def _below(path: str, folder: str) -> str:
    """Return what a list calls an image."""
    name = os.path.relpath(os.path.abspath(path), os.path.abspath(folder))
    if name.split(os.sep)[0] == os.pardir:
        raise UsageError(
            f'{shortened(path)} does not lie in {shortened(folder)}: name the '
            'folder that the features are of.'
        )
    # A spreadsheet would run a name that begins as a formula does.
    start = './' if name[0] in '=+-@' else ''
    return start + name.replace(os.sep, '/')


def _bytes(path: str) -> int:
    """Return the size of a file: of near-duplicates the largest is kept."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _fits_a_list(name: str) -> bool:
    return name == name.strip() and not {'\n', '\r'} & {*name}


def _write_list(file: str, rows: Sequence[tuple[str, str, int]]) -> None:
    """Write a list that our data sets read, without names that it cannot."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator='\n')
    table.writerow(('path', 'group', 'images'))
    odd = []
    for name, group, size in rows:
        if _fits_a_list(name):
            table.writerow((name, group, size))
        else:
            odd.append(name)
    content = text.getvalue().encode('utf-8', 'surrogateescape')
    checkpoint_io.write_bytes(file, content)
    if odd:
        log_warning(
            f'{file}: {len(odd)} image(s) are left out, such as '
            f'{shortened(odd[0])}: no list holds names with line ends, or '
            'space at an end.'
        )


def _picture(
    number: int, paths: Sequence[str], row: tuple[str, str, int], place: int
) -> ViewPicture:
    """Return an image for the picture, small; grey if it is none."""
    name, _, size = row
    path: dict[str, Any] = {'img_path': paths[number]}
    fault = ''
    try:
        image = LoadRGB().transform(path)['img']
        scale = min(1.0, _SIDE / max(image.shape[:2]))
        height, width = (max(1, round(x * scale)) for x in image.shape[:2])
        image = cv2.resize(
            image, (width, height), interpolation=cv2.INTER_AREA
        )
    except OSError:
        image, fault = np.full((_SIDE, _SIDE, 3), 200, np.uint8), 'no picture'
    title = f'{size} images' if not place else f'{place + 1}'
    # A dollar would begin a formula.
    note = printable(ascii(name)[1:-1]).replace('$', r'\$')
    return ViewPicture(image, title, [note], fault)


def near_duplicates(
    folder: str, read: Any, threshold: float, neighbours: int, out: str
) -> Duplicates:
    """Read features, find groups and write them.

    Args:
        folder: Of the images.
        read: Returns features and paths, given a folder for large files.
        threshold: As for :func:`find`.
        neighbours: As for :func:`find`.
        out: As for :func:`write`.

    Raises:
        UsageError: If there are no two images.
    """
    parent = Path(out).resolve().parent
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent) as place:
        features, paths = read(place)
        if len(paths) < 2:
            raise UsageError(f'{folder}: {len(paths)} image, needs two.')
        numbered = find(features, threshold, neighbours)
        del features  # Before its file goes.
    return write(folder, paths, numbered, threshold, out)
