"""The operations of the views, on uint8 arrays, in a worker.

Parameters are drawn from numpy's global generator, which the data set seeds
from the sample's address, with the distributions of torchvision.
"""

import math
from abc import abstractmethod
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from mmmoco.functional import Range, check_range, check_size, check_within
from mmmoco.registry import TRANSFORMS

from . import pixel_ops
from .pixel_ops import AnyImage

Results = dict[str, Any]
Drawn = dict[str, Any]


class FastView(BaseTransform):
    """Draw parameters, then apply them to ``img``.

    Where the results hold a list ``drawn``, the parameters are noted there,
    and ``changes``: how far the pixels moved on average.

    Args:
        prob: Probability that the operation acts.
    """

    #: Channels that the operation is defined for; 0: any number.
    channels = 0

    def __init__(self, prob: float) -> None:
        check_within(prob=prob)
        self.prob = prob

    def draw(self, height: int, width: int) -> Drawn:
        """Draw the parameters of :meth:`apply` for an image of this size."""
        return {}

    @abstractmethod
    def apply(self, image: AnyImage, **drawn: Any) -> AnyImage:
        """Return the changed image, H×W×C."""

    def transform(self, results: Results) -> Results:
        """Change ``img``, or leave it.

        Raises:
            ValueError: If the operation is not defined for the image.
        """
        image = results['img']
        if self.channels and (
            image.shape[2:] != (self.channels,) or image.dtype != np.uint8
        ):
            raise ValueError(
                f'{type(self).__name__} is defined for uint8 RGB images, got '
                f'{image.dtype} of shape {image.shape}. Leave it out, or take '
                'BandBrightnessContrast, BandGray or BandBlur, which know any '
                'channels.'
            )
        if self.prob < 1.0 and np.random.rand() >= self.prob:
            return results
        drawn = self.draw(*image.shape[:2])
        results['img'] = self.apply(image, **drawn)
        if 'drawn' in results:
            if results['img'].shape == image.shape:
                moved = np.subtract(results['img'], image, dtype=np.float32)
                drawn = drawn | {'changes': float(np.abs(moved).mean())}
            results['drawn'].append((type(self).__name__, drawn))
        return results


@TRANSFORMS.register_module()
class FastRandomResizedCrop(FastView):
    """Cut a random box and resize it, as torchvision's RandomResizedCrop.

    Bilinear with antialiasing, for any number of channels, uint8, uint16 or
    float32.

    Args:
        size: Side of the result in pixels, or height and width: ``ratio`` is
            that of the box all the same, which is then stretched.
        scale: Range of the area, as a fraction of the image.
        ratio: Range of width / height, drawn by its logarithm.
    """

    def __init__(
        self,
        size: int | tuple[int, int],
        scale: Range = (0.08, 1.0),
        ratio: Range = (3 / 4, 4 / 3),
    ) -> None:
        super().__init__(prob=1.0)
        check_range('scale', scale, most=1.0, positive=True)
        check_range('ratio', ratio, positive=True)
        self.size = check_size(type(self).__name__, size)
        self.scale, self.ratio = scale, ratio

    def draw(self, height: int, width: int) -> Drawn:
        """Try ten times; then take the largest box of an allowed ratio."""
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(10):
            area = height * width * np.random.uniform(*self.scale)
            aspect = math.exp(np.random.uniform(low, high))
            w = round(math.sqrt(area * aspect))
            h = round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                top = np.random.randint(height - h + 1)
                left = np.random.randint(width - w + 1)
                return dict(top=top, left=left, height=h, width=w)
        aspect = min(max(width / height, self.ratio[0]), self.ratio[1])
        w = min(width, round(height * aspect))
        h = min(height, round(width / aspect))
        return dict(
            top=(height - h) // 2, left=(width - w) // 2, height=h, width=w
        )

    def apply(self, image: AnyImage, **drawn: Any) -> AnyImage:
        """Return height×width×C."""
        return pixel_ops.crop_resize(image, size=self.size, **drawn)


@TRANSFORMS.register_module()
class FastFlip(FastView):
    """Mirror the image.

    Args:
        horizontal: Probability of exchanging left and right.
        vertical: Probability of exchanging top and bottom.
    """

    def __init__(self, horizontal: float = 0.5, vertical: float = 0.0) -> None:
        super().__init__(prob=1.0)
        check_within(horizontal=horizontal, vertical=vertical)
        self.horizontal, self.vertical = horizontal, vertical

    def draw(self, height: int, width: int) -> Drawn:
        """Draw both directions, independently."""
        return dict(
            horizontal=bool(np.random.rand() < self.horizontal),
            vertical=bool(np.random.rand() < self.vertical),
        )

    def apply(self, image: AnyImage, **drawn: Any) -> AnyImage:
        """Return the image, mirrored as drawn."""
        return pixel_ops.flip(image, **drawn)


@TRANSFORMS.register_module()
class FastColorJitter(FastView):
    """Change brightness, contrast, saturation and hue, in random order.

    As torchvision's ColorJitter: factors are uniform in [1 − x, 1 + x], the
    shift of the hue in [−hue, hue] of a circle.

    Args:
        brightness: Half width of the range of the factor, at most 1.
        contrast: The same for the contrast.
        saturation: The same for the saturation.
        hue: Largest shift, at most 0.5.
        prob: Probability that the operation acts.
    """

    channels = 3

    def __init__(
        self,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
        prob: float = 1.0,
    ) -> None:
        super().__init__(prob)
        self.widths = dict(
            brightness=brightness,
            contrast=contrast,
            saturation=saturation,
            hue=hue,
        )
        check_within(**self.widths)
        check_within(0.5, hue=hue)

    def draw(self, height: int, width: int) -> Drawn:
        """Return the factors, in the order in which they apply."""
        names = [name for name, width in self.widths.items() if width]
        np.random.shuffle(names)
        return {
            name: float(name != 'hue')
            + np.random.uniform(-self.widths[name], self.widths[name])
            for name in names
        }

    def apply(self, image: AnyImage, **drawn: Any) -> AnyImage:
        """Apply the factors one after the other."""
        for name, factor in drawn.items():
            image = getattr(pixel_ops, f'adjust_{name}')(image, factor)
        return image


@TRANSFORMS.register_module()
class FastGrayscale(FastView):
    """Replace the colours by grey, in three equal channels.

    Args:
        prob: Probability that the operation acts.
    """

    channels = 3

    def __init__(self, prob: float = 0.2) -> None:
        super().__init__(prob)

    def apply(self, image: AnyImage, **drawn: Any) -> AnyImage:
        """Return the grey image."""
        return pixel_ops.grayscale(image)


@TRANSFORMS.register_module()
class FastGaussianBlur(FastView):
    """Blur by a Gaussian (SimCLR, MoCo v2).

    Args:
        sigma: Range of the standard deviation in pixels, which PIL calls
            radius.
        prob: Probability that the operation acts.
    """

    channels = 3

    def __init__(self, sigma: Range = (0.1, 2.0), prob: float = 0.5) -> None:
        super().__init__(prob)
        check_range('sigma', sigma)
        self.sigma = sigma

    def draw(self, height: int, width: int) -> Drawn:
        """Draw σ."""
        return dict(sigma=np.random.uniform(*self.sigma))

    def apply(self, image: AnyImage, **drawn: Any) -> AnyImage:
        """Return the blurred image."""
        return pixel_ops.gaussian_blur(image, **drawn)


@TRANSFORMS.register_module()
class FastSolarize(FastView):
    """Invert the bright pixels (BYOL, MoCo v3).

    Args:
        threshold: The darkest grey level that is inverted.
        prob: Probability that the operation acts.
    """

    channels = 3

    def __init__(self, threshold: int = 128, prob: float = 0.2) -> None:
        super().__init__(prob)
        self.threshold = threshold

    def draw(self, height: int, width: int) -> Drawn:
        """The threshold is given, not drawn."""
        return dict(threshold=self.threshold)

    def apply(self, image: AnyImage, **drawn: Any) -> AnyImage:
        """Return the solarised image."""
        return pixel_ops.solarize(image, **drawn)
