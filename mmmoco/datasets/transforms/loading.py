"""From a file to uint8 RGB, whatever the file holds."""

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin, UnidentifiedImageError
from torchvision.io import ImageReadMode, decode_jpeg

from mmmoco.datasets.bad_files import reason_of
from mmmoco.files import MAX_BYTES, read_file
from mmmoco.messages import printable
from mmmoco.registry import TRANSFORMS

Results = dict[str, Any]
JPEG, PNG = b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n'

#: What is decoded, by content and whatever the name says. PIL knows more
#: formats; some of them start programs. An MPO begins as a JPEG.
FORMATS = ('JPEG', 'PNG', 'BMP', 'WEBP', 'TIFF')

#: Larger images are refused before they are decoded: a file of a few kB can
#: claim to hold gigabytes.
MAX_PIXELS = 100_000_000

#: Pixels of a tile, however small the image is.
MAX_TILE = 2048 * 2048

#: A JPEG may send every pixel again and again; encoders send it 10 times.
MAX_SCANS = 100

#: Marks in a JPEG that no length follows, and that of a scan.
_NO_SEGMENT = {bytes([mark]) for mark in (0, 1, *range(0xD0, 0xDB), 0xFF)} | {
    b''
}

_BANDS = 277  # The tag of a TIFF, SamplesPerPixel.

#: Of an image of 16 bits: what uses no more is darkened to 16 grey levels.
NARROW = 4095


@contextmanager
def decoding(name: str, what: str = 'decode image') -> Iterator[None]:
    """Take whatever a decoder raises, the lack of memory too, for damage.

    To be laid around calls of other libraries only: a fault of ours keeps
    its trace.

    Args:
        name: What to call the file in the error.
        what: Cannot be done.

    Raises:
        OSError: If the block raises anything else than an ImportError.
    """
    try:
        yield
    except ImportError:
        raise  # A library is missing: no fault of the file.
    except Exception as error:
        raise OSError(
            f'Cannot {what} {printable(name)!r}: {reason_of(error)}'
        ) from error


def open_image(
    source: str | os.PathLike[str] | bytes, name: str
) -> Image.Image:
    """Read and decode an image with PIL, unless it is too large.

    Args:
        source: Path or content.
        name: What to call it in errors.

    Raises:
        OSError: If it cannot be decoded, is of another format, or is too
            large.
    """
    data = source if isinstance(source, bytes) else read_file(source)
    with decoding(name):
        image = identify(data)
        image.load()
    return image


def identify(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Return a PIL image whose header was read, and whose size was checked.

    Raises:
        OSError: If it is too large, or of a format that is not decoded. PIL
            may raise anything else.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise OSError(_unknown(data)) from None
    check_size(*image.size, max_pixels)
    if image.format == 'TIFF':
        tags: Any = image.tag_v2  # type: ignore[attr-defined]
        check_tile((tags.get(322, 0), tags.get(323, 0)), image.size)
        # Of bands that are stored one after the other PIL reads one.
        if image.mode != 'CMYK' and tags.get(_BANDS, 1) > 4:
            raise OSError(_bands_said(tags))
    if data.startswith(JPEG):
        check_scans(data)
    return image


def _unknown(data: bytes) -> str:
    """Say what PIL cannot read; a TIFF tells how many bands it has."""
    if data.startswith((b'II*\0', b'MM\0*')):
        with suppress(Exception):  # Anything may stand there.
            tags = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
            file = io.BytesIO(data)
            file.seek(tags.next)
            tags.load(file)
            return _bands_said(tags)
    return 'it is no JPEG, PNG, BMP, WebP or TIFF'


def _bands_said(tags: Any) -> str:
    return (
        f'it is a TIFF of {int(tags[_BANDS])} bands, and no picture: read it '
        'with LoadBands (config mocov2_r50_1xb64_bands, mmmoco stats --bands)'
    )


def check_size(width: int, height: int, max_pixels: int = MAX_PIXELS) -> None:
    """Refuse an image before it is decoded.

    Raises:
        OSError: If it has more pixels than allowed.
    """
    if width * height > max_pixels:
        raise OSError(
            f'{width}×{height} pixels are more than max_pixels={max_pixels}'
        )


def check_tile(tile: tuple[Any, Any], image: tuple[int, int]) -> None:
    """Refuse tiles of a TIFF that are far larger than the whole image.

    Raises:
        OSError: If they are: memory is taken for each as a whole.
    """
    if not all(type(side) is int for side in tile):
        raise OSError('the size of its tiles is no number')
    area, whole = tile[0] * tile[1], image[0] * image[1]
    if area > max(MAX_TILE, 2 * whole):
        raise OSError(
            f'tiles of {tile[0]}×{tile[1]} pixels are too large for an image '
            f'of {image[0]}×{image[1]}'
        )


def check_scans(data: bytes) -> None:
    """Refuse a JPEG that would be decoded again and again.

    Counted is the mark of a scan in all that follows the header, where
    nothing but a scan can have it (or a thumbnail, a few times).

    Raises:
        OSError: If it has more scans than allowed.
    """
    place = 2
    while data[place : place + 1] == b'\xff':
        mark = data[place + 1 : place + 2]
        # Those without a length would lead past scans.
        if mark in _NO_SEGMENT:
            break
        size = int.from_bytes(data[place + 2 : place + 4], 'big')
        if size < 2:
            break
        place += 2 + size
    scans = data.count(b'\xff\xda', place)
    if scans > MAX_SCANS:
        raise OSError(f'{scans} scans are more than {MAX_SCANS}')


def decode_rgb(
    data: bytes,
    name: str,
    max_pixels: int = MAX_PIXELS,
    value_range: tuple[float, float] | None = None,
    allow_narrow: bool = False,
) -> NDArray[np.uint8]:
    """Decode an image, as PIL's ``convert('RGB')`` defines it.

    The content decides on the format, not the name. Grey becomes three equal
    channels, palettes are looked up, CMYK is converted, transparency is
    dropped (not laid over a colour), the first frame of an animation counts.
    The EXIF orientation is ignored, as torchvision's data sets ignore it.

    Args:
        data: Content of the file.
        name: What to call it in errors.
        max_pixels: Larger images are refused before they are decoded.
        value_range: Of images with more than 8 bits: the values that become
            0 and 255. None: 16 bits are divided by 256, and floats refused.
        allow_narrow: Let images of 16 bits be divided by 256 that use so
            little of their range that hardly anything is left.

    Returns:
        H×W×3, RGB.

    Raises:
        OSError: If it cannot be decoded to the end, is too large, or has
            values without a defined range.
    """
    with decoding(name):
        image = identify(data, max_pixels)
        if image.mode == 'RGB' and data.startswith(JPEG):
            return _decode_jpeg(data)
        values = deep_values(image, data)
        if values is None:
            return np.array(image.convert('RGB'))
    return to_bytes(values, name, value_range, allow_narrow)


def _decode_jpeg(data: bytes) -> NDArray[np.uint8]:
    """Decode a colour JPEG: equal to PIL's result, in less time."""
    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    pixels = decode_jpeg(encoded, mode=ImageReadMode.RGB)
    result: NDArray[np.uint8] = pixels.permute(1, 2, 0).numpy()
    return result


def deep_values(image: Image.Image, data: bytes) -> NDArray[Any] | None:
    """Return H×W[×C] of an image with more than 8 bits; None: it has 8.

    PIL keeps the upper 8 bits of 16-bit colour, without a word; OpenCV, whose
    reader is told apart by the content too, keeps all.

    Args:
        image: As :func:`identify` returns it.
        data: Its content.
    """
    if image.mode in ('I', 'F') or image.mode.startswith('I;16'):
        return np.asarray(image)
    if data.startswith(PNG):
        depth = data[24]
    elif image.format == 'TIFF':
        bits = image.tag_v2.get(258, 8)  # type: ignore[attr-defined]
        depth = max(bits) if isinstance(bits, tuple) else bits
    else:
        return None
    if depth != 16:
        return None
    read: Any = cv2.imdecode(
        np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED
    )
    if read is None or read.shape[:2] != image.size[::-1]:
        raise OSError('its 16 bits cannot be decoded')
    if read.dtype != np.uint16:
        raise OSError(f'its 16 bits were decoded to {read.dtype}')
    if read.ndim == 2:
        return read
    channels: NDArray[Any] = read[..., [2, 1, 0, *range(3, read.shape[2])]]
    return channels


def to_bytes(
    values: NDArray[Any],
    name: str,
    value_range: tuple[float, float] | None,
    allow_narrow: bool,
) -> NDArray[np.uint8]:
    """Turn values of more than 8 bits into bytes, as :func:`decode_rgb`.

    Args:
        values: H×W or H×W×C; more than three channels are cut.
        name: What to call them in errors.
        value_range: As for :func:`decode_rgb`.
        allow_narrow: As for :func:`decode_rgb`.

    Raises:
        OSError: If the values have no defined range.
    """
    if value_range is not None:
        low, high = value_range
        with np.errstate(invalid='ignore'):
            scaled = (values.astype(np.float32) - low) * (255 / (high - low))
        scaled = np.clip(np.rint(np.nan_to_num(scaled, nan=0.0)), 0, 255)
        result = scaled.astype(np.uint8)
    elif values.dtype.kind != 'u' or values.dtype.itemsize != 2:
        raise OSError(
            f'Cannot decode image {printable(name)!r}: pixels of '
            f'{values.dtype} have no defined range: set range=(low, high) or '
            "range='auto' in LoadRGB, or read them as bands"
        )
    else:
        low, high = int(values.min()), int(values.max())
        if not allow_narrow and 0 < high - low <= NARROW:
            raise OSError(
                f'Cannot decode image {printable(name)!r}: {narrow(low, high)}'
            )
        result = (values >> 8).astype(np.uint8)
    return _three_channels(result)


def _three_channels(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return H×W×3 of H×W, or of H×W×C."""
    if image.ndim == 2:
        return np.repeat(image[..., None], 3, axis=2)
    return np.ascontiguousarray(image[..., :3])


def narrow(low: float, high: float) -> str:
    """Say what is wrong with values of 16 bits that use little of them."""
    part = 100 * (high - low) / 65535
    return (
        f'its values go from {low:g} to {high:g}, {part:.1f} % of what 16 '
        'bits can hold, and would hardly differ when divided by 256: set '
        f"range=({low:g}, {high:g}) or range='auto' in LoadRGB, or read them "
        'as bands'
    )


def _from_array(
    image: Image.Image | NDArray[Any],
    value_range: tuple[float, float] | None,
    allow_narrow: bool,
) -> NDArray[np.uint8]:
    """Return H×W×3 of an image that needs no decoding.

    Raises:
        OSError: If it is no image of 1, 3 or 4 channels.
    """
    if isinstance(image, Image.Image):
        deep = image.mode in ('I', 'F') or image.mode.startswith('I;16')
        image = np.asarray(image if deep else image.convert('RGB'))
    array = image[..., None] if image.ndim == 2 else image
    if array.shape[2:] not in ((1,), (3,), (4,)) or array.dtype.kind not in (
        'uif'
    ):
        raise OSError(
            f'an array of {image.dtype}, shape {image.shape}, is no RGB image'
        )
    if array.shape[2] == 1:
        array = array[..., 0]
    if array.dtype != np.uint8:
        return to_bytes(array, 'in memory', value_range, allow_narrow)
    return _three_channels(array)


@TRANSFORMS.register_module()
class LoadRGB(BaseTransform):
    """Decode ``img_path`` to ``img``, uint8 H×W×3, by :func:`decode_rgb`.

    Sources without files give the content as ``img_bytes`` (``img_path`` is
    then a name only), or ``img`` itself.

    Args:
        max_pixels: Larger images are refused before they are decoded.
        max_bytes: Larger files are refused before they are read.
        range: What becomes 0 and 255 in images with more than 8 bits, for
            example ``(0, 4095)``. None: 16 bits are divided by 256, and an
            image that uses a sixteenth of them or less is an error. With
            ``'auto'`` in a config, the percentiles of the training images
            take its place before the run begins.

    Attributes:
        allow_narrow: As for :func:`decode_rgb`; set by a data set whose
            images together use their range.
        is_open: Whether ``'auto'`` still stands for two numbers.
    """

    def __init__(
        self,
        max_pixels: int = MAX_PIXELS,
        max_bytes: int = MAX_BYTES,
        range: Sequence[float] | str | None = None,
    ) -> None:
        self.max_pixels, self.max_bytes = max_pixels, max_bytes
        self.is_open = range == 'auto'
        self.range = None if self.is_open else checked_range(range)
        self.allow_narrow = False

    def settle(self, value_range: tuple[float, float] | None) -> None:
        """Put numbers in the place of ``'auto'``."""
        self.is_open, self.range = False, value_range

    def transform(self, results: Results) -> Results:
        """Read the file.

        Raises:
            OSError: If it cannot be read or decoded, naming it.
            ValueError: If the range is still to be found.
        """
        if self.is_open:
            raise ValueError(
                "LoadRGB: range='auto' is measured by the data sets of "
                'mmmoco; here give two numbers, as mmmoco stats '
                'prints them (1 % and 99 %).'
            )
        options = (self.range, self.allow_narrow)
        if 'img' in results:
            results['img'] = _from_array(results['img'], *options)
            return results
        path = results['img_path']
        data = results.get('img_bytes')
        if data is None:
            data = read_file(path, self.max_bytes)
        results['img'] = decode_rgb(data, str(path), self.max_pixels, *options)
        return results


def checked_range(value: Any) -> tuple[float, float] | None:
    """Return a range as two numbers, low before high.

    Raises:
        ValueError: If it is none.
    """
    if value is None:
        return None
    try:
        low, high = (float(number) for number in value)
        fits = low < high and np.isfinite([low, high]).all()
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(
            f"LoadRGB: range={value!r}: give (low, high), or 'auto'."
        )
    return low, high


@TRANSFORMS.register_module()
class ToPIL(BaseTransform):
    """Turn ``img`` into a PIL image, which torchvision's transforms take."""

    def transform(self, results: Results) -> Results:
        """Convert; an image of one channel becomes mode ``'L'``."""
        image = results['img']
        if image.shape[-1] == 1:
            image = image[..., 0]
        results['img'] = Image.fromarray(image)
        return results
