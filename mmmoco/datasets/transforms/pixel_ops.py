"""What the fast views do to pixels, at given parameters.

Each function takes and returns an array H×W×C, and stands for an operation
of torchvision on PIL images, by which the papers' recipes are defined. The
comments say where PIL rounds or cuts off; the tests hold each function
against it.
"""

from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from mmmoco.functional import PASSES, extended_box

#: uint8 RGB, H×W×3; OpenCV's types do not say so.
Image = NDArray[Any]
AnyImage = NDArray[Any]

#: PIL's weights of grey (ITU-R 601-2).
GREY = np.array([0.299, 0.587, 0.114])

#: PIL cuts the result of a blend off, OpenCV rounds it: less a half, they
#: agree. The rest keeps whole numbers, which round to even, from falling.
CUT = -0.4999


def crop_resize(
    image: AnyImage,
    top: int,
    left: int,
    height: int,
    width: int,
    size: int | tuple[int, int],
) -> AnyImage:
    """Cut a box and resize it to a side, or height and width.

    Bilinear, antialiased.

    torch's uint8 kernel computes as PIL does, in a tenth of the time, where
    OpenCV's INTER_AREA has another kernel and its INTER_LINEAR does not
    antialias at all. float32 stays float32, uint16 stays uint16.
    """
    box = image[top : top + height, left : left + width]
    if box.dtype == np.uint16:
        box = box.astype(np.float32)
    # The batch dimension comes first so that torch sees channels_last, for
    # which it has its fastest kernel.
    pixels = torch.from_numpy(np.ascontiguousarray(box))[None]
    resized = F.interpolate(
        pixels.permute(0, 3, 1, 2),
        (size, size) if isinstance(size, int) else size,
        mode='bilinear',
        antialias=True,
        align_corners=False,
    )
    result = np.ascontiguousarray(resized.permute(0, 2, 3, 1)[0].numpy())
    if image.dtype == np.uint16:
        return np.rint(result).astype(np.uint16)
    return result


def flip(image: AnyImage, horizontal: bool, vertical: bool) -> AnyImage:
    """Mirror left and right, top and bottom, or both."""
    if not (horizontal or vertical):
        return np.ascontiguousarray(image)
    # Values only move: any type goes as one of its size that OpenCV knows.
    size = image.dtype.itemsize
    moved = image.view(f'u{size}' if size < 4 else f'f{size}')
    axes = -1 if horizontal and vertical else int(horizontal)
    mirrored: Any = cv2.flip(moved, axes)
    return mirrored.view(image.dtype).reshape(image.shape)


def adjust_brightness(image: Image, factor: float) -> Image:
    """Multiply by ``factor``."""
    return cv2.addWeighted(image, factor, image, 0.0, CUT)


def adjust_contrast(image: Image, factor: float) -> Image:
    """Scale the distance from the image's mean grey."""
    means: Any = cv2.mean(to_grey(image))
    mean = int(means[0] + 0.5)
    return cv2.addWeighted(
        image, factor, image, 0.0, (1.0 - factor) * mean + CUT
    )


def adjust_saturation(image: Image, factor: float) -> Image:
    """Scale the distance from each pixel's grey, by a 3×3 matrix."""
    matrix = np.empty((3, 4), np.float32)
    matrix[:, :3] = (1.0 - factor) * GREY + factor * np.eye(3)
    matrix[:, 3] = CUT
    return cv2.transform(image, matrix)


def adjust_hue(image: Image, shift: float) -> Image:
    """Turn the hue by ``shift`` of a circle.

    HLS has the hue of HSV, and OpenCV leads it back faster. The shift is
    cut off to whole steps, as torchvision does.
    """
    hls: Any = cv2.cvtColor(image, cv2.COLOR_RGB2HLS_FULL)
    hls[..., 0] += np.uint8(int(shift * 255) % 256)
    return cv2.cvtColor(hls, cv2.COLOR_HLS2RGB_FULL)


def to_grey(image: Image) -> Image:
    """Return the grey values, H×W."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)


def grayscale(image: Image) -> Image:
    """Replace the colours by three equal channels."""
    return cv2.cvtColor(to_grey(image), cv2.COLOR_GRAY2RGB)


def gaussian_blur(image: Image, sigma: float) -> Image:
    """Blur as PIL does: an extended box, three times along each axis.

    Every pass rounds to whole grey levels and repeats the pixels of the
    border, as PIL's.
    """
    reach, fraction = extended_box(sigma)
    box = np.ones(2 * int(reach) + 3, np.float32)
    box[[0, -1]] = fraction
    box /= box.sum()
    for kernel in (box[None], box[:, None]):
        for _ in range(PASSES):
            image = cv2.filter2D(
                image, -1, kernel, borderType=cv2.BORDER_REPLICATE
            )
    return image


def solarize(image: Image, threshold: int) -> Image:
    """Invert what is not below ``threshold``."""
    _, bright = cv2.threshold(image, threshold - 1, 255, cv2.THRESH_BINARY)
    return cv2.bitwise_xor(image, bright)
