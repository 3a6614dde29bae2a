"""View operations for a whole batch, on whatever device it lies.

Each takes float images N×C×H×W in [0, 255] and a generator of the same
device, and draws its parameters per sample.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mmmoco.registry import BATCH_AUGMENTS


def _uniform(
    n: int, low: float, high: float, generator: torch.Generator
) -> Tensor:
    device = generator.device
    return (
        torch.rand(n, generator=generator, device=device) * (high - low) + low
    )


@BATCH_AUGMENTS.register_module()
class BatchRandomResizedCrop:
    """Crop a random part of each image and resize it, by bilinear sampling.

    Area and aspect ratio are drawn as torchvision's RandomResizedCrop draws
    them; a crop that would exceed the image is shrunk to fit instead of
    being drawn again. There is no antialiasing: meant for small images, where
    a crop is hardly ever shrunk.

    Args:
        size: Side of the result in pixels.
        scale: Range of the area, as a fraction of the image.
        ratio: Range of width / height.
        flip: Probability of a horizontal flip.
    """

    def __init__(
        self,
        size: int,
        scale: tuple[float, float] = (0.2, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        flip: float = 0.0,
    ) -> None:
        if not 0.0 < scale[0] <= scale[1] <= 1.0:
            raise ValueError(f'scale={scale} must lie within (0, 1].')
        if not 0.0 < ratio[0] <= ratio[1]:
            raise ValueError(f'ratio={ratio} must be positive, low to high.')
        self.size, self.scale, self.ratio, self.flip = size, scale, ratio, flip

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return N×C×size×size."""
        n = len(x)
        area = _uniform(n, *self.scale, generator)
        aspect = _uniform(
            n, math.log(self.ratio[0]), math.log(self.ratio[1]), generator
        ).exp()
        # Half sizes in the normalised coordinates of affine_grid.
        height, width = x.shape[-2:]
        aspect = aspect * height / width
        w = (area * aspect).sqrt().clamp(max=1.0)
        h = (area / aspect).sqrt().clamp(max=1.0)
        cx = _uniform(n, -1.0, 1.0, generator) * (1.0 - w)
        cy = _uniform(n, -1.0, 1.0, generator) * (1.0 - h)
        if self.flip:
            w = torch.where(_uniform(n, 0, 1, generator) < self.flip, -w, w)
        theta = x.new_zeros(n, 2, 3)
        theta[:, 0, 0], theta[:, 0, 2] = w, cx
        theta[:, 1, 1], theta[:, 1, 2] = h, cy
        shape = [n, x.shape[1], self.size, self.size]
        grid = F.affine_grid(theta, shape, align_corners=False)
        return F.grid_sample(
            x, grid, padding_mode='border', align_corners=False
        )


@BATCH_AUGMENTS.register_module()
class BatchBrightnessContrast:
    """Scale brightness, then contrast around each image's mean.

    Args:
        brightness: Factors are drawn from [1 − b, 1 + b].
        contrast: Likewise.
        prob: Probability that a sample is changed at all.
    """

    def __init__(
        self, brightness: float = 0.4, contrast: float = 0.4, prob: float = 1.0
    ) -> None:
        if not (0.0 <= brightness <= 1.0 and 0.0 <= contrast <= 1.0):
            raise ValueError(
                f'brightness={brightness} and contrast={contrast} must lie '
                'within [0, 1].'
            )
        self.brightness, self.contrast, self.prob = brightness, contrast, prob

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return the images, clipped to [0, 255]."""
        n = len(x)
        b = _uniform(n, 1 - self.brightness, 1 + self.brightness, generator)
        c = _uniform(n, 1 - self.contrast, 1 + self.contrast, generator)
        if self.prob < 1.0:
            keep = _uniform(n, 0.0, 1.0, generator) >= self.prob
            b, c = b.masked_fill(keep, 1.0), c.masked_fill(keep, 1.0)
        x = (x * b[:, None, None, None]).clamp(0.0, 255.0)
        mean = x.mean((1, 2, 3), keepdim=True)
        return torch.lerp(mean, x, c[:, None, None, None]).clamp(0.0, 255.0)
