"""From a file to uint8 RGB, whatever the file holds."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from numpy.typing import NDArray
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg

from mmmoco.registry import TRANSFORMS

Results = dict[str, Any]
JPEG = b'\xff\xd8\xff'

#: What decoders raise for a damaged file.
DAMAGED = (OSError, SyntaxError, ValueError, RuntimeError, EOFError)


#: Larger images are refused before they are decoded: a file of a few kB can
#: claim to hold gigabytes.
MAX_PIXELS = 100_000_000


@contextmanager
def open_image(
    source: str | os.PathLike[str] | bytes,
    name: str,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[Image.Image]:
    """Open an image with PIL, unless it is too large.

    Args:
        source: Path or content.
        name: What to call it in errors.
        max_pixels: The limit.

    Raises:
        OSError: If it cannot be decoded, within the block too, or is too
            large.
    """
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(file) as image:
            check_size(*image.size, max_pixels)
            yield image
    except FileNotFoundError:
        raise
    except (*DAMAGED, Image.DecompressionBombError) as error:
        raise OSError(f'Cannot decode image {name!r}: {error}') from error


def check_size(width: int, height: int, max_pixels: int = MAX_PIXELS) -> None:
    """Refuse an image before it is decoded.

    Raises:
        OSError: If it has more pixels than allowed.
    """
    if width * height > max_pixels:
        raise OSError(
            f'{width}×{height} pixels are more than max_pixels={max_pixels}'
        )


def decode_rgb(
    data: bytes, name: str, max_pixels: int = MAX_PIXELS
) -> NDArray[np.uint8]:
    """Decode an image, as PIL's ``convert('RGB')`` defines it.

    The content decides on the format, not the name. Grey becomes three equal
    channels, palettes are looked up, CMYK is converted, transparency is
    dropped (not laid over a colour), the first frame of an animation counts,
    16-bit grey is divided by 256. The EXIF orientation is ignored, as
    torchvision's data sets ignore it.

    Args:
        data: Content of the file.
        name: What to call it in errors.
        max_pixels: Larger images are refused before they are decoded.

    Returns:
        H×W×3, RGB.

    Raises:
        OSError: If it cannot be decoded to the end, or is too large.
    """
    with open_image(data, name, max_pixels) as image:
        if image.mode == 'RGB' and data.startswith(JPEG):
            return _decode_jpeg(data)
        return _to_rgb(image)


def _decode_jpeg(data: bytes) -> NDArray[np.uint8]:
    """Decode a colour JPEG: equal to PIL's result, in less time."""
    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    pixels = decode_jpeg(encoded, mode=ImageReadMode.RGB)
    result: NDArray[np.uint8] = pixels.permute(1, 2, 0).numpy()
    return result


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode.startswith('I;16'):
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode in ('I', 'F'):
        raise OSError(
            f'pixels of mode {image.mode!r} (32 bits) have no defined range; '
            'read them as bands, not as RGB'
        )
    return np.array(image.convert('RGB'))


def _from_array(image: Image.Image | NDArray[Any]) -> NDArray[np.uint8]:
    """Return H×W×3 of an image that needs no decoding.

    Raises:
        OSError: If it is no uint8 image of 1, 3 or 4 channels.
    """
    if isinstance(image, Image.Image):
        return _to_rgb(image)
    array = image[..., None] if image.ndim == 2 else image
    if array.dtype != np.uint8 or array.shape[2:] not in ((1,), (3,), (4,)):
        raise OSError(
            f'an array of {image.dtype}, shape {image.shape}, is no RGB image'
        )
    if array.shape[2] == 1:
        return np.repeat(array, 3, axis=2)
    return np.ascontiguousarray(array[..., :3])


@TRANSFORMS.register_module()
class LoadRGB(BaseTransform):
    """Decode ``img_path`` to ``img``, uint8 H×W×3, by :func:`decode_rgb`.

    Sources without files give the content as ``img_bytes`` (``img_path`` is
    then a name only), or ``img`` itself.

    Args:
        max_pixels: Larger images are refused before they are decoded.
    """

    def __init__(self, max_pixels: int = MAX_PIXELS) -> None:
        self.max_pixels = max_pixels

    def transform(self, results: Results) -> Results:
        """Read the file.

        Raises:
            OSError: If it cannot be read or decoded, naming it.
        """
        if 'img' in results:
            results['img'] = _from_array(results['img'])
            return results
        path = results['img_path']
        data = results.get('img_bytes')
        if data is None:
            with open(path, 'rb') as file:
                data = file.read()
        results['img'] = decode_rgb(data, str(path), self.max_pixels)
        return results


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
