"""TIFFs of bands, by tifffile, once their directories are known to end."""

import io
import math
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmmoco.files import MAX_BYTES
from mmmoco.messages import library

from .loading import check_size, check_tile

#: What a TIFF begins with: two orders of bytes, two sizes of numbers.
TIFF = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')

_WITHOUT_VALUE = 42113  # GDAL's tag, whose text is a number.

#: What is unpacked into memory of the size that a page says. An image within
#: a strip (JPEG, JPEG 2000, WebP) has a size of its own, whatever that is.
_PACKED = {
    1: 'none',
    5: 'LZW',
    8: 'deflate',
    32773: 'PackBits',
    32946: 'deflate',
    34925: 'LZMA',
    50000: 'zstd',
    34926: 'zstd',
}

#: More pages of one kind may as well be images of a series.
_BANDS_IN_PAGES = 16
_MOST_PAGES = 1000
_MOST_ENTRIES = 20_000
_MOST_OF_ONE = 1 << 20  # Numbers of an entry that become Python's.
_TEXT = (1, 2, 6, 7)  # Types whose values stay bytes.


def read_tiff(
    data: bytes, max_bytes: int = MAX_BYTES
) -> tuple[NDArray[Any], int | None, float | None]:
    """Return the first image of a TIFF, with the pages that are like it.

    Args:
        data: Content of the file.
        max_bytes: Images that unpack to more are refused.

    Returns:
        The image, the axis of its bands if the file says which that is or
        a few pages are, and the value for no data.

    Raises:
        ImportError: If tifffile, or the codec of the file, is missing.
        OSError: If it is too large, or its directories lead nowhere.
    """
    tifffile = library('tifffile', 'A TIFF of bands')
    check_directories(data)
    # Dialects of microscopes: some name other files, and all go on to parse.
    plain = {f'is_{flag}': False for flag in tifffile.TIFF.FILE_FLAGS}
    kind: Any = type('PlainTiff', (tifffile.TiffFile,), plain)
    with kind(io.BytesIO(data)) as file:
        first = file.pages.first
        pages = [
            page
            for page in (file.pages[i] for i in range(len(file.pages)))
            if page.shape == first.shape and page.dtype == first.dtype
        ]
        if first.dtype is None or not first.shape:
            raise OSError('its first page holds no image')
        check_size(*sides_of(first.shape))
        for page in pages:
            _check_packing(page)
        size = len(pages) * first.dtype.itemsize * math.prod(first.shape)
        if size > max_bytes:
            raise OSError(f'unpacked, {size} bytes are more than {max_bytes=}')
        try:
            parts = [page.asarray(maxworkers=1) for page in pages]
        except ValueError as error:
            if 'imagecodecs' not in str(error):
                raise
            raise ImportError(
                f'This TIFF is compressed ({error}): pip install imagecodecs.'
            ) from error
        axes = first.axes
        nothing = _number(first.tags.valueof(_WITHOUT_VALUE))
    if len(parts) > 1:
        few = len(parts) <= _BANDS_IN_PAGES
        return np.stack(parts), 0 if few else None, nothing
    image, axis = parts[0], axes.find('S')
    return image, axis if image.ndim == 3 and axis >= 0 else None, nothing


def _check_packing(page: Any) -> None:
    """Refuse a page that could unpack to more than its image.

    Raises:
        OSError: If it can.
    """
    if page.compression not in _PACKED:
        known = ', '.join(sorted(set(_PACKED.values())))
        raise OSError(
            f'its compression {int(page.compression)} is none of {known}: '
            'convert it (gdal_translate -co COMPRESS=DEFLATE)'
        )
    if page.is_tiled:
        check_tile(
            (page.tilewidth, page.tilelength * page.tiledepth),
            (page.imagewidth, page.imagelength * page.imagedepth),
        )


def sides_of(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return width and height of an image of any order of axes."""
    large = sorted(shape, reverse=True)[:2]
    return (large[0], large[1]) if len(large) == 2 else (0, 0)


def check_directories(data: bytes) -> None:
    """Go through the directories once, as a reader would.

    Raises:
        OSError: If they go in a circle, or hold more than an image needs.
    """
    order = '<' if data.startswith(b'II') else '>'
    large = data[2:4] in (b'+\0', b'\0+')
    word, count, entry = ('Q', 'Q', 20) if large else ('I', 'H', 12)
    head = struct.Struct(order + count)
    link = struct.Struct(order + word)
    row = struct.Struct(f'{order}HH{word}')
    seen, entries, place = set[int](), 0, 8 if large else 4
    while place + link.size <= len(data):
        (start,) = link.unpack_from(data, place)
        if start == 0 or start + head.size > len(data):
            return
        if start in seen or len(seen) == _MOST_PAGES:
            raise OSError('its pages go in a circle, or are too many')
        seen.add(start)
        (number,) = head.unpack_from(data, start)
        entries += number
        if entries > _MOST_ENTRIES:
            raise OSError(f'it has more than {_MOST_ENTRIES} entries')
        start += head.size
        place = start + number * entry
        for at in range(start, min(place, len(data) - row.size), entry):
            tag, kind, values = row.unpack_from(data, at)
            if values > _MOST_OF_ONE and kind not in _TEXT:
                raise OSError(f'its entry {tag} has {values} values')


def _number(text: Any) -> float | None:
    """Return GDAL's value for no data; None: there is none, or it is NaN."""
    try:
        value = float(str(text)[:100].strip('\x00 '))
    except ValueError:
        return None
    return value if np.isfinite(value) else None
