"""What a folder of images holds: number, sizes, channels, depth, classes."""

import logging
import random
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmmoco.apis.data.channel_statistics import ChannelStatistics
from mmmoco.datasets.bad_files import reason_of
from mmmoco.datasets.image_folder import EXTENSIONS, ImageFolderDataset
from mmmoco.datasets.transforms.bands import LoadBands
from mmmoco.datasets.transforms.loading import (
    decode_rgb,
    deep_values,
    identify,
    to_bytes,
)
from mmmoco.datasets.transforms.tiff import TIFF, check_directories
from mmmoco.datasets.value_range import measure_range
from mmmoco.files import files_below, read_file
from mmmoco.messages import printable
from mmmoco.private_names import replaced

#: Plain arrays are bands too.
ARRAYS = ('.npy',)
TRAIN, VAL = 'train', ('val', 'valid', 'validation', 'test')

#: Folders that hold the labels of other tasks, drawn as images.
_ANNOTATIONS = {
    *('ann_dir', 'annotation', 'annotations', 'gt', 'labels', 'label'),
    *('masks', 'mask', 'segmentation', 'labelids', 'gtfine'),
}
_LOOKED_AT = 48
#: Fewer images than this in a folder, on average, make no class.
_LEAST_OF_CLASS = 5

Kind = Literal['colours', 'deep', 'bands']
Array = NDArray[Any]


@dataclass(frozen=True)
class Labelled:
    """Images with classes, from the names of folders.

    Attributes:
        bank: Paths and classes of what is voted with.
        query: Of what is classified; None: the bank, each image without
            itself.
        val: The folder of the queries, below the data.
    """

    bank: list[tuple[str, str]]
    query: list[tuple[str, str]] | None = None
    val: str = ''

    @property
    def classes(self) -> list[str]:
        """Their names."""
        return sorted({name for _, name in self.bank})


@dataclass
class Images:
    """What a folder holds.

    Attributes:
        root: The folder.
        prefix: The sub-folder that is trained on.
        paths: Every image of the training.
        kind: ``'colours'``, 8 bits; ``'deep'``, more bits; ``'bands'``, any
            number of channels.
        channels: Of the network's input.
        stored: Channels, type and size in words.
        side: Shorter side, the median.
        mean, std: By channel, of bytes; of bands as they are stored; None:
            of photographs.
        low, high: What becomes 0 and 255 of deep images, and of bands where
            that is no matter of mean and std.
        labelled: Its classes, if it has any.
        remarks: What is odd about it.
    """

    root: str
    prefix: str
    paths: list[str]
    kind: Kind
    channels: int
    stored: str
    side: int
    mean: list[float] | None = None
    std: list[float] | None = None
    low: list[float] | None = None
    high: list[float] | None = None
    labelled: Labelled | None = None
    remarks: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        classes = 'no class folders'
        if self.labelled:
            classes = f'{len(self.labelled.classes)} class folders'
        return f'{len(self.paths):,} images, {self.stored}; {classes}'


class _Look(NamedTuple):
    """One image: how it is stored, and its values.

    Attributes:
        kind: As of :class:`Images`.
        stored: Channels in the file.
        values: H×W×C.
        missing: Where there is no value.
    """

    kind: Kind
    stored: int
    values: Array
    missing: Array | None = None


def look(
    data: str,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    order: str = 'auto',
) -> Images:
    """Look at a folder, and at some of its images.

    Args:
        data: The folder.
        include: Patterns of files, as of ``ImageFolderDataset``.
        exclude: Patterns of others.
        order: How bands are stored, as of ``LoadBands``.

    Raises:
        FileNotFoundError: If there is no folder, or no image in it.
        OSError: If none of those that were looked at can be read.
        ValueError: If they cannot be trained on together.
    """
    root = Path(data).expanduser()
    if not root.is_dir():
        what = 'is no folder' if root.exists() else 'does not exist'
        raise FileNotFoundError(
            f'{printable(str(data))!r} {what}: give the folder that holds '
            'your images, at any depth (an archive has to be unpacked).'
        )
    root = root.resolve()
    split = (root / TRAIN).is_dir()

    def paths_of(folder: Path) -> list[str]:
        endings = EXTENSIONS + ARRAYS
        return files_below(folder, endings, include, exclude).paths

    prefix = TRAIN if split and paths_of(root / TRAIN) else ''
    paths = paths_of(root / prefix)
    if not paths:
        endings = ', '.join(EXTENSIONS + ARRAYS)
        wished = bool(include or exclude)
        raise FileNotFoundError(
            f'No image in {printable(str(root))!r} or below it: looked for '
            f'files that end with {endings}'
            f'{", as --include and --exclude say" if wished else ""}.'
        )
    if len(paths) < 4:
        raise ValueError(
            f'{printable(str(root))!r} holds {len(paths)} image(s): '
            'contrasting needs at least 4, and learning hundreds.'
        )
    remarks = _annotations(paths, root)
    labelled = None
    if not remarks:
        labelled = _labelled(root, prefix, paths, remarks, paths_of)
    looks = _look_at(paths, remarks, order)
    kind, channels = _common(looks)
    shapes = sorted(x.values.shape[:2] for x in looks.values())
    found = Images(
        str(root), prefix, paths, kind, channels,
        stored=_stored(kind, looks, *shapes[len(shapes) // 2]),
        side=int(np.median([min(shape) for shape in shapes])),
        labelled=labelled,
        remarks=remarks,
    )  # fmt: skip
    _add_ranges(found, looks, include=include, exclude=exclude)
    return found


def _stored(
    kind: Kind, looks: Mapping[str, _Look], height: int, width: int
) -> str:
    """Say how images are stored."""
    channels = sorted({x.stored for x in looks.values()}, reverse=True)
    words = {1: 'grey', 4: 'RGB (the fourth channel is left out)'}
    names = [words.get(count, 'RGB') for count in channels]
    if kind == 'bands':
        names = [f'{count} bands' for count in channels]
    one = next(iter(looks.values()))
    depth = '8 bits' if kind == 'colours' else str(one.values.dtype)
    return f'{" and ".join(dict.fromkeys(names))}, {depth}, {width}×{height}'


def _annotations(paths: Sequence[str], root: Path) -> list[str]:
    """Say which folders look as if they held drawn labels, no pictures."""
    found = Counter(
        str(folder)
        for path in paths
        for folder in _places(Path(path).relative_to(root))
    )
    if not found:
        return []
    (name, _), *_ = found.most_common(1)
    return [
        f'{sum(found.values())} of the {len(paths)} images look like labels, '
        f'by names such as {printable(name)!r}: leave them out with '
        f'--exclude {shlex.quote(Path(name).name)}'
    ]


def _places(path: Path) -> Iterator[str]:
    """Yield folders, and endings of names, that look like labels."""
    for folder in path.parents:
        if folder.name.lower() in _ANNOTATIONS:
            yield str(folder)
    _, mark, word = path.stem.lower().replace('-', '_').rpartition('_')
    if mark and word in _ANNOTATIONS:
        yield f'*{path.stem[-len(word) - 1 :]}{path.suffix}'


def _look_at(
    paths: Sequence[str], remarks: list[str], order: str
) -> dict[str, _Look]:
    """Read some images, spread over all; remark on those that are bad."""
    count = min(_LOOKED_AT, len(paths))
    # Drawn: of images and masks in turn every second would be of one kind.
    drawn = random.Random(0).sample(range(len(paths)), count)
    looks, bad = {}, []
    # PIL logs each TIFF of bands as an error.
    log = logging.getLogger('PIL.TiffImagePlugin')
    with replaced(log, 'disabled', True):
        for path in (paths[i] for i in sorted(drawn)):
            try:
                looks[path] = _read(path, order)
            except OSError as error:
                bad.append(f'{printable(path)!r} ({reason_of(error)})')
    if not looks:
        raise OSError(
            f'None of {count} images looked at can be read; the first: '
            f'{bad[0]}.'
        )
    if bad:
        remarks.append(
            f'{len(bad)} of {count} images looked at cannot be read, for '
            f'example {bad[0]}: the training replaces them, and stops at '
            'more than 5 %'
        )
    return looks


def _read(path: str, order: str) -> _Look:
    if path.lower().endswith(ARRAYS):
        return _bands(path, order)
    data = read_file(path)
    tiff = data.startswith(TIFF)
    try:
        image = identify(data)
        deep = deep_values(image, data)
        if tiff:
            check_directories(data)
        pages = getattr(image, 'n_frames', 1) if tiff else 1
    except Exception as error:
        # What PIL cannot read may be a TIFF of bands; else LoadRGB says why.
        if tiff:
            return _bands(path, order)
        raise OSError(str(error)) from error
    channels = len(image.getbands()) if deep is None else deep[0, 0].size
    if tiff and channels == 4 and image.mode != 'CMYK':
        return _bands(path, order)
    if pages > 1:  # Of bands; or of one picture and its thumbnail.
        found = _bands(path, order)
        if found.stored > 3:
            return found
    if deep is not None:
        return _Look('deep', channels, deep.reshape(*deep.shape[:2], -1))
    grey = channels < 3 and image.mode != 'P'
    stored = 1 if grey else 4 if image.mode == 'RGBA' else 3
    return _Look('colours', stored, decode_rgb(data, path))


def _bands(path: str, order: str) -> _Look:
    results = LoadBands(order=order)({'img_path': path})
    assert results is not None
    values = results['img']
    return _Look('bands', values.shape[2], values, results.get('missing'))


def _common(looks: dict[str, _Look]) -> tuple[Kind, int]:
    """Return the kind and the channels of all images.

    Raises:
        ValueError: If they have no common ones.
    """

    def what(look: _Look) -> tuple[Kind, int]:
        bands = look.kind == 'bands'
        return look.kind, look.values.shape[2] if bands else 3

    kinds: dict[tuple[Kind, int], list[str]] = {}
    for path, x in looks.items():
        kinds.setdefault(what(x), []).append(path)
    if len(kinds) == 1:
        return next(iter(kinds))
    if {kind for kind, _ in kinds} == {'colours', 'deep'}:
        return 'deep', 3  # The range holds for those with more bits only.
    words = {'colours': 'of 8 bits', 'deep': 'of more than 8 bits'}
    told = [
        f'{len(paths)} such as {printable(paths[0])!r} are '
        + words.get(
            kind, f'of {channels} bands ({looks[paths[0]].values.dtype})'
        )
        for (kind, channels), paths in sorted(
            kinds.items(), key=lambda found: -len(found[1])
        )
    ]
    raise ValueError(
        f'The images do not fit one network: of {len(looks)} looked at, '
        f'{"; ".join(told[:3])}. Leave one kind out with --exclude PATTERN '
        "(such as '*_mask.tif'), or give a folder that holds one."
    )


def _add_ranges(
    images: Images, looks: Mapping[str, _Look], **patterns: Any
) -> None:
    """Add the ranges and statistics that the kind of images needs."""
    if images.kind == 'colours':
        return
    statistics = ChannelStatistics()
    span = None
    if images.kind == 'deep':
        dataset = ImageFolderDataset(images.root, images.prefix, **patterns)
        try:
            span = measure_range(dataset) or (0.0, 65535.0)
        except ValueError as error:
            one = next(p for p, x in looks.items() if x.kind == 'deep')
            raise ValueError(
                f'{printable(one)!r} and what else has more than 8 bits: '
                'nearly all of their values are the same, so there is '
                'nothing to learn from them. Take them out of the folder.'
            ) from error
        images.low, images.high = [span[0]], [span[1]]
    for x in looks.values():
        values = x.values
        if x.kind == 'deep':
            values = to_bytes(values, '', span, allow_narrow=True)
        if x.kind != 'bands' and values.shape[2] == 1:
            values = np.repeat(values, 3, axis=2)
        statistics.add(values[..., : images.channels], x.missing)
    mean, std = statistics.mean, statistics.std
    least: Any = 1.0
    if all(x.values.dtype == np.uint8 for x in looks.values()):
        if images.kind == 'bands':
            images.low = [0.0] * images.channels
            images.high = [255.0] * images.channels
    elif not span:
        least = 1e-6 + 1e-3 * abs(mean)
    images.mean = _rounded(mean)
    images.std = _rounded(np.maximum(std, least))
    constant = np.flatnonzero(std == 0).tolist()
    if constant and images.kind == 'bands':
        images.remarks.append(
            f'band(s) {", ".join(map(str, constant))} (counted from 0) have '
            'one value only'
        )


def _rounded(values: Array) -> list[float]:
    """Return numbers with five digits: they stand in a config."""
    return [float(f'{value:.5g}') for value in values]


def _labelled(
    root: Path,
    prefix: str,
    paths: Sequence[str],
    remarks: list[str],
    paths_of: Callable[[Path], list[str]],
) -> Labelled | None:
    """Return the classes of folders; None, with a remark, if none are."""
    bank = _classes(root / prefix, paths)
    if bank is None:
        return None
    names = {name for _, name in bank}
    if len(names) < 2:
        return None
    if len(bank) < _LEAST_OF_CLASS * len(names):
        remarks.append(
            f'{len(bank)} images in {len(names)} folders: too few to '
            'take the folders for classes, so k-NN is left out'
        )
        return None
    folders = [name for name in VAL if prefix and (root / name).is_dir()]
    for val in folders:
        query = _classes(root / val, paths_of(root / val))
        if query and {name for _, name in query} <= names:
            return Labelled(bank, query, val)
    return Labelled(bank)


def _classes(
    folder: Path, paths: Sequence[str]
) -> list[tuple[str, str]] | None:
    """Return paths and classes; None if an image lies in no class folder."""
    found = [(p, Path(p).relative_to(folder).parts) for p in paths]
    if any(len(parts) < 2 for _, parts in found):
        return None
    return [(path, parts[0]) for path, parts in found]
