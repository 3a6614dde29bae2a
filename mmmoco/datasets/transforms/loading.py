"""From a file to uint8 RGB, whatever the file holds."""

import io
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


def decode_rgb(
    data: bytes, name: str, max_pixels: int = 100_000_000
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
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise OSError(
                    f'{width}×{height} pixels are more than '
                    f'max_pixels={max_pixels}'
                )
            if image.mode == 'RGB' and data.startswith(JPEG):
                return _decode_jpeg(data)
            return _to_rgb(image)
    except (*DAMAGED, Image.DecompressionBombError) as error:
        raise OSError(f'Cannot decode image {name!r}: {error}') from error


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


@TRANSFORMS.register_module()
class LoadRGB(BaseTransform):
    """Decode ``img_path`` to ``img``, uint8 H×W×3, by :func:`decode_rgb`.

    Args:
        max_pixels: Larger images are refused before they are decoded.
    """

    def __init__(self, max_pixels: int = 100_000_000) -> None:
        self.max_pixels = max_pixels

    def transform(self, results: Results) -> Results:
        """Read the file.

        Raises:
            OSError: If it cannot be read or decoded, naming it.
        """
        path = results['img_path']
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
