"""What a folder of images holds: number, sizes, channels, depth, classes."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mmmoco.apis.data.channel_statistics import ChannelStatistics
from mmmoco.datasets.bad_files import reason_of
from mmmoco.datasets.files import files_below, read_file
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
        train, val: The folders, below the data.
        classes: Their names.
    """

    bank: list[tuple[str, str]]
    query: list[tuple[str, str]] | None
    train: str
    val: str
    classes: tuple[str, ...]


@dataclass(frozen=True)
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
        mean, std: By channel, of bytes; None: of photographs.
        low, high: By band, what becomes 0 and 255; of deep images, one each.
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

    @property
    def arrays(self) -> bool:
        """Whether there are .npy files among them."""
        return any(p.lower().endswith(ARRAYS) for p in self.paths)

    def __str__(self) -> str:
        classes = 'no class folders'
        if self.labelled:
            classes = f'{len(self.labelled.classes)} class folders'
        return f'{len(self.paths):,} images, {self.stored}; {classes}'


@dataclass(frozen=True)
class _Look:
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
    missing: Any = None


def look(data: str) -> Images:
    """Look at a folder, and at some of its images.

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
    prefix = TRAIN if split and _paths(root / TRAIN) else ''
    paths = _paths(root / prefix)
    if not paths:
        endings = ', '.join(EXTENSIONS + ARRAYS)
        raise FileNotFoundError(
            f'No image in {printable(str(root))!r} or below it: looked for '
            f'files that end with {endings}.'
        )
    if len(paths) < 4:
        raise ValueError(
            f'{printable(str(root))!r} holds {len(paths)} image(s): '
            'contrasting needs at least 4, and learning hundreds.'
        )
    remarks = _annotations(paths, root)
    labelled = None if remarks else _labelled(root, prefix, paths, remarks)
    looks, bad = _look_at(paths)
    if bad:
        remarks.append(
            f'{len(bad)} of {len(looks) + len(bad)} images looked at cannot '
            f'be read, for example {bad[0]}: the training replaces them, and '
            'stops at more than 5 %'
        )
    kind, channels = _common(looks)
    side = int(np.median([min(x.values.shape[:2]) for x in looks.values()]))
    shapes = sorted(x.values.shape[:2] for x in looks.values())
    height, width = shapes[len(shapes) // 2]
    one = next(iter(looks.values()))
    found = Images(
        str(root), prefix, paths, kind, channels, '', side,
        labelled=labelled, remarks=remarks,
    )  # fmt: skip
    depth = '8 bits' if kind == 'colours' else str(one.values.dtype)
    stored = sorted({x.stored for x in looks.values()}, reverse=True)
    names = ['grey' if count == 1 else 'RGB' for count in stored]
    if kind == 'bands':
        names = [f'{count} bands' for count in stored]
    said = ' and '.join(dict.fromkeys(names))
    facts = vars(found) | {'stored': f'{said}, {depth}, {width}×{height}'}
    return Images(**facts | _values(found, list(looks.values())))


def _paths(folder: Path) -> list[str]:
    listing = files_below(folder, EXTENSIONS + ARRAYS)
    return listing.paths


def _annotations(paths: Sequence[str], root: Path) -> list[str]:
    """Say which folders look as if they held drawn labels, no pictures."""
    found = Counter(
        str(folder)
        for path in paths
        for folder in Path(path).relative_to(root).parents
        if folder.name.lower() in _ANNOTATIONS
    )
    if not found:
        return []
    (name, _), *_ = found.most_common(1)
    return [
        f'{sum(found.values())} of the {len(paths)} images lie in folders '
        f'such as {printable(name)!r}, which look like labels: give the '
        'folder of the pictures alone'
    ]


def _look_at(paths: Sequence[str]) -> tuple[dict[str, _Look], list[str]]:
    """Read some images, spread over all; return also what is bad."""
    count = min(_LOOKED_AT, len(paths))
    chosen = [paths[i * len(paths) // count] for i in range(count)]
    looks, bad = {}, []
    # PIL logs each TIFF of bands as an error.
    log = logging.getLogger('PIL.TiffImagePlugin')
    with replaced(log, 'disabled', True):
        for path in chosen:
            try:
                looks[path] = _read(path)
            except OSError as error:
                bad.append(f'{printable(path)!r} ({reason_of(error)})')
    if not looks:
        raise OSError(
            f'None of {count} images looked at can be read; the first: '
            f'{bad[0]}.'
        )
    return looks, bad


def _read(path: str) -> _Look:
    data = read_file(path)
    if path.lower().endswith(ARRAYS):
        return _bands(path)
    try:
        image = identify(data)
        deep = deep_values(image, data)
        pages = _pages(image, data)
    except Exception as error:
        # What PIL cannot read may be a TIFF of bands; else LoadRGB says why.
        if data.startswith(TIFF):
            return _bands(path)
        raise OSError(str(error)) from error
    stored = len(image.getbands())
    if image.mode in ('P', '1', 'CMYK', 'YCbCr', 'LAB', 'HSV'):
        stored = 1 if image.mode == '1' else 3
    if data.startswith(TIFF) and stored == 4 and image.mode != 'CMYK':
        return _bands(path)
    if pages > 1:  # Of bands; or of one picture and its thumbnail.
        found = _bands(path)
        if found.stored > 3:
            return found
    if deep is None:
        values: Array = decode_rgb(data, path)
        return _Look('colours', 1 if stored < 3 else 3, values)
    deep = deep[..., None] if deep.ndim == 2 else deep
    if deep.shape[2] == 4 and data.startswith(TIFF):
        return _bands(path)
    return _Look('deep', deep.shape[2], deep)


def _pages(image: Any, data: bytes) -> int:
    """Return the pages of a TIFF, of which PIL would show the first."""
    if not data.startswith(TIFF):
        return 1
    check_directories(data)
    return int(getattr(image, 'n_frames', 1))


def _bands(path: str) -> _Look:
    results = LoadBands()({'img_path': path})
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

    kinds = {what(x): path for path, x in looks.items()}
    if len(kinds) == 1:
        return next(iter(kinds))
    if {kind for kind, _ in kinds} == {'colours', 'deep'}:
        return 'deep', 3  # The range holds for those with more bits only.
    words = {'colours': 'of 8 bits', 'deep': 'of more than 8 bits'}
    told = [
        f'{printable(path)!r} is '
        + words.get(kind, f'of {channels} bands ({looks[path].values.dtype})')
        for (kind, channels), path in kinds.items()
    ]
    raise ValueError(
        f'The images do not fit one network: {"; ".join(told[:3])}. Give a '
        'folder that holds one kind.'
    )


def _values(found: Images, looks: Sequence[_Look]) -> dict[str, Any]:
    """Return the ranges and statistics that the kind of images needs."""
    if found.kind == 'colours':
        return {}
    statistics = ChannelStatistics()
    if found.kind == 'deep':
        dataset = ImageFolderDataset(found.root, found.prefix)
        span = measure_range(dataset) or (0.0, 65535.0)
        for x in looks:
            values = x.values
            if x.kind == 'deep':
                values = to_bytes(values, '', span, allow_narrow=True)
            if values.shape[2] == 1:
                values = np.repeat(values, 3, axis=2)
            statistics.add(values[..., :3])
        low, high = ([number] for number in span)
        return dict(low=low, high=high, **_moments(statistics))
    for x in looks:
        statistics.add(x.values, x.missing)
    if all(x.values.dtype == np.uint8 for x in looks):
        return _moments(statistics)
    spread = np.maximum(statistics.std, 1e-6 + 1e-3 * abs(statistics.mean))
    constant = np.flatnonzero(statistics.std == 0).tolist()
    if constant:
        found.remarks.append(
            f'band(s) {", ".join(map(str, constant))} (counted from 0) have '
            'one value only'
        )
    return dict(
        low=_rounded(statistics.mean - 2 * spread),
        high=_rounded(statistics.mean + 2 * spread),
        # Of the bytes: mean ± 2 standard deviations fill them.
        mean=[127.5] * found.channels,
        std=[63.75] * found.channels,
    )


def _moments(statistics: ChannelStatistics) -> dict[str, list[float]]:
    std = np.maximum(statistics.std, 1.0)
    return dict(mean=_rounded(statistics.mean), std=_rounded(std))


def _rounded(values: Array) -> list[float]:
    """Return numbers with five digits: they stand in a config."""
    return [float(f'{value:.5g}') for value in values]


def _labelled(
    root: Path, prefix: str, paths: Sequence[str], remarks: list[str]
) -> Labelled | None:
    """Return the classes of folders; None, with a remark, if none are."""
    bank = _classes(root / prefix, paths)
    if bank is None:
        return None
    names = tuple(sorted({name for _, name in bank}))
    if len(names) < 2 or len(bank) < _LEAST_OF_CLASS * len(names):
        if len(names) > 1:
            remarks.append(
                f'{len(bank)} images in {len(names)} folders: too few to '
                'take the folders for classes, so k-NN is left out'
            )
        return None
    if not prefix:
        return Labelled(bank, None, '', '', names)
    for val in VAL:
        if (root / val).is_dir():
            query = _classes(root / val, _paths(root / val))
            known = set(names)
            if query and {name for _, name in query} <= known:
                return Labelled(bank, query, prefix, val, names)
    return Labelled(bank, None, prefix, '', names)


def _classes(
    folder: Path, paths: Sequence[str]
) -> list[tuple[str, str]] | None:
    """Return paths and classes; None if an image lies in no class folder."""
    found = [(p, Path(p).relative_to(folder).parts) for p in paths]
    if any(len(parts) < 2 for _, parts in found):
        return None
    return [(path, parts[0]) for path, parts in found]
