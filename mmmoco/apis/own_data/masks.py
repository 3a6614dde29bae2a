"""A folder of masks: which image each is of, and the classes in it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from statistics import median

import numpy as np

from mmmoco.datasets.image_folder import EXTENSIONS
from mmmoco.datasets.transforms.loading import decoding, identify, open_image
from mmmoco.files import files_below, lines_of, read_file
from mmmoco.messages import few, shortened

from .labels import Labels

IGNORED = 255
#: So many masks are opened, evenly chosen.
_MOST = 2000
#: How the class numbers of a pixel may be stored.
_MODES = ('1', 'L', 'P', 'I', 'I;16')


@dataclass
class Masks(Labels):
    """What a folder holds.

    Attributes:
        masks: Their folder.
        suffixes: How the names of images and masks end.
        stems: What stands before that, of the images that have a mask.
        values: Class numbers that occur.
        size: Width and height of an image, the medians.
        whole: Whether all images have a mask: no list is needed.
    """

    masks: str
    suffixes: tuple[str, str]
    stems: list[str]
    values: set[int]
    size: tuple[int, int]
    whole: bool

    def text(self) -> str | None:
        """Return the list of its images; None if all have a mask."""
        return None if self.whole else lines_of(self.stems)


def read_masks(folder: str, images: str, suffix: str | None) -> Masks:
    """Find pairs of image and mask, and look into the masks.

    Args:
        folder: Of the masks.
        images: Folder of the images.
        suffix: How the names of masks end; None: the images tell.

    Raises:
        OSError: If something cannot be read.
        ValueError: If there are no pairs, or masks hold no class numbers.
    """
    (pictures, complete), (masks, _) = _names(images), _names(folder)
    pair = _suffixes(images, pictures, folder, masks, suffix)
    ending, known = pair[0], set(masks)
    shots = [name for name in pictures if name.endswith(ending)]
    stems = [name.removesuffix(ending) for name in shots]
    stems = [stem for stem in stems if stem + pair[1] in known]
    values, sizes = set[int](), []
    chosen = stems[:: -(-len(stems) // _MOST)]
    for stem in chosen:
        path = os.path.join(folder, stem + pair[1])
        found, size = _look(path)
        of = os.path.join(images, stem + ending)
        data = read_file(of)
        with decoding(of):
            own = identify(data).size
        if own != size:
            raise ValueError(
                f'{path!r} has {size[0]}×{size[1]} pixels, its image '
                f'{own[0]}×{own[1]}.'
            )
        values |= found
        sizes.append(size)
    width, height = (int(median(side)) for side in zip(*sizes, strict=True))
    names = [stem + ending for stem in stems]
    whole = complete and len(stems) == len(shots)
    result = Masks(
        *(images, names, folder, pair, stems, values, (width, height), whole)
    )
    result.remarks.append(
        f'{len(stems):,} images with masks, values '
        f'{few([str(v) for v in sorted(values)], 12)}'
    )
    left = len(pictures) - len(stems)
    if left and images != folder:
        result.remarks.append(f'{left:,} images without mask are left out')
    if len(chosen) < len(stems):
        result.remarks.append(f'{len(chosen):,} of the masks were looked into')
    return result


def classes_of(
    values: set[int], wanted: Sequence[str] | None, reduce_zero: bool
) -> tuple[str, ...]:
    """Return the names of the classes, by number.

    Args:
        values: That occur.
        wanted: Names, by number; None: the numbers are the names.
        reduce_zero: 0 is no class, and 1 the first.

    Raises:
        ValueError: If names and values do not fit, or there are too few.
    """
    first = int(reduce_zero)
    numbers = sorted(v - first for v in values - {IGNORED} if v >= first)
    shown = few([str(v) for v in sorted(values)], 12)
    if len(numbers) < 2:
        raise ValueError(
            f'The masks hold the values {shown}: that is no two classes '
            f'({IGNORED} means ignored in mmseg; write it as another number '
            'if it is a class).'
        )
    if wanted is None:
        return tuple(str(i + first) for i in range(numbers[-1] + 1))
    if numbers[-1] >= len(wanted):
        mend = 'name them all'
        if numbers[-1] == len(wanted) and 0 in values:
            mend += ', or say by --reduce-zero-label that 0 is no class'
        raise ValueError(
            f'--classes names {len(wanted)}, the masks hold the values '
            f'{shown}: {mend}.'
        )
    return tuple(wanted)


def _names(folder: str) -> tuple[list[str], bool]:
    """Return images, and whether they are all that mmseg would find."""
    found = files_below(Path(folder), EXTENSIONS)
    if not found.paths:
        raise ValueError(f'There are no images below {folder!r}.')
    names = [os.path.relpath(path, folder) for path in found.paths]
    return names, found.complete


def _suffixes(
    images: str,
    pictures: list[str],
    folder: str,
    masks: list[str],
    suffix: str | None,
) -> tuple[str, str]:
    """Return how names of images and masks end behind what they share.

    Raises:
        ValueError: If no mask is called as an image, or masks of several
            kinds are.
    """
    if suffix:
        masks = [name for name in masks if name.endswith(suffix)]
    known = set(masks)
    pairs: dict[tuple[str, str], int] = {}
    for name in pictures[:: -(-len(pictures) // 20)]:
        place = os.path.dirname(name)
        near = [m for m in masks if os.path.dirname(m) == place]
        shared = {m: _shared(_stem(name), _stem(m)) for m in near}
        longest = max(shared.values(), default=0)
        if longest <= len(place) + bool(place):
            continue
        for mask in (m for m, length in shared.items() if length == longest):
            pair = name[longest:], mask[longest:]
            if pair not in pairs:
                ends = [n for n in pictures if n.endswith(pair[0])]
                pairs[pair] = sum(
                    n.removesuffix(pair[0]) + pair[1] in known for n in ends
                )
    most = max(pairs.values(), default=0)
    best = sorted(pair for pair, number in pairs.items() if number == most)
    if not best:
        said = f' that ends in {suffix!r}' if suffix else ''
        raise ValueError(
            f'No mask in {folder!r}{said} is called as an image in {images!r}:'
            f' there are {shortened(masks[0]) if masks else "none"} and '
            f'{shortened(pictures[0])}.'
        )
    if len(best) > 1:
        kinds = few([shortened(ends[1], 60) for ends in best])
        raise ValueError(
            f'{folder!r} has several masks of an image, which end in {kinds}: '
            'choose by --mask-suffix.'
        )
    return best[0]


def _shared(first: str, second: str) -> int:
    """Return how many letters two names begin alike with."""
    pairs = zip(first, second, strict=False)
    return len([*takewhile(lambda pair: pair[0] == pair[1], pairs)])


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]


def _look(path: str) -> tuple[set[int], tuple[int, int]]:
    """Return the values of a mask, and its size."""
    mask = open_image(path, path)
    if mask.format in ('JPEG', 'MPO'):
        raise ValueError(
            f'{path!r} is a JPEG, which changes the numbers of pixels: masks '
            'have to be written as PNG, from their source.'
        )
    if mask.mode not in _MODES:
        raise ValueError(
            f'{path!r} is a picture in colours ({mask.mode}), not a mask: '
            'every pixel has to be the number of its class.'
        )
    found = {int(value) for value in np.unique(np.asarray(mask))}
    if not 0 <= min(found) <= max(found) <= IGNORED:
        raise ValueError(
            f'{path!r} has values from {min(found)} to {max(found)}; class '
            f'numbers lie between 0 and {IGNORED - 1}.'
        )
    return found, mask.size
