"""View operations for a whole batch, on whatever device it lies.

Each takes float images N×C×H×W in grey levels 0 … 255 and draws parameters
per sample. They are drawn on the CPU, so that a seed gives the same parameters
on every device and no operation waits for a GPU to know its samples. Only the
values of noise, which are as many as the pixels, are drawn where these lie:
there a seed gives the same noise on devices of the same kind.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmmoco.functional import (
    Range,
    check_range,
    check_size,
    check_within,
    send,
)
from mmmoco.registry import BATCH_AUGMENTS

Drawn = dict[str, Tensor]
Ready = dict[str, Any]


class BatchView:
    """Draw parameters for every sample, then apply them.

    Three steps, so that the parameters of all operations travel to the device
    in one copy: :meth:`draw` and :meth:`prepare` on the host, :meth:`act` on
    the device. As they stand here, :meth:`change` is done to the samples that
    ``prob`` chooses.

    Args:
        prob: Probability that the operation acts on a sample.
    """

    def __init__(self, prob: float = 1.0) -> None:
        check_within(prob=prob)
        self.prob = prob

    def draw(self, n: int, generator: torch.Generator) -> Drawn:
        """Draw the parameters of :meth:`apply`: n values each, on the CPU."""
        return dict(acts=self.choose(n, generator))

    def prepare(self, drawn: Drawn, shape: torch.Size) -> Ready:
        """Turn what was drawn into what :meth:`act` needs on the device.

        Args:
            drawn: From :meth:`draw`.
            shape: Of the images that the operation will receive.

        Raises:
            ValueError: If the operation is not defined for such images.
        """
        return dict(at=which(drawn['acts']))

    def act(self, x: Tensor, **ready: Any) -> Tensor:
        """Return the changed images; may overwrite ``x``."""
        at = ready.pop('at')
        return change_some(x, at, lambda part: self.change(part, **ready))

    def change(self, x: Tensor, **ready: Any) -> Tensor:
        """Return chosen images, all of them changed."""
        raise NotImplementedError

    def shape_after(self, shape: torch.Size) -> torch.Size:
        """Return the shape of the changed images."""
        return shape

    def apply(self, x: Tensor, **drawn: Tensor) -> Tensor:
        """Return the changed images; ``x`` stays as it is."""
        return self.act(
            x.clone(), **send(self.prepare(drawn, x.shape), x.device)
        )

    def choose(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw on which samples the operation acts: n booleans."""
        if self.prob == 1.0:
            return torch.ones(n, dtype=torch.bool)
        return uniform(n, (0.0, 1.0), generator) < self.prob

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Draw and apply."""
        return self.apply(x, **self.draw(len(x), generator))


def which(acts: Tensor) -> Tensor:
    """Return the indices of the samples where ``acts`` is true."""
    return acts.nonzero()[:, 0]


def change_some(
    x: Tensor, at: Tensor, change: Callable[[Tensor], Tensor]
) -> Tensor:
    """Change some samples, in place unless all of them change.

    Args:
        x: N×C×H×W, overwritten.
        at: Their indices, ascending, on the device of ``x``.
        change: From the chosen samples to the changed ones.
    """
    if len(at) == 0:
        return x
    if len(at) == len(x):
        return change(x).contiguous()  # Grey is one channel thrice.
    return x.index_copy_(0, at, change(x[at]))


def uniform(n: int, bounds: Range, generator: torch.Generator) -> Tensor:
    """Draw n numbers between two bounds."""
    low, high = bounds
    return torch.rand(n, generator=generator) * (high - low) + low


@BATCH_AUGMENTS.register_module()
class BatchRandomResizedCrop(BatchView):
    """Crop a random part of each image and resize it, by bilinear sampling.

    Area and aspect ratio are drawn as torchvision's RandomResizedCrop draws
    them; a crop that would exceed the image is shrunk to fit instead of
    being drawn again. There is no antialiasing: meant for small images, where
    a crop is hardly ever shrunk.

    Args:
        size: Side of the result in pixels, or height and width.
        scale: Range of the area, as a fraction of the image.
        ratio: Range of width / height.
        flip: Probability of a horizontal flip.
    """

    def __init__(
        self,
        size: int | tuple[int, int],
        scale: Range = (0.2, 1.0),
        ratio: Range = (3 / 4, 4 / 3),
        flip: float = 0.0,
    ) -> None:
        super().__init__()
        check_range('scale', scale, most=1.0, positive=True)
        check_range('ratio', ratio, positive=True)
        self.size = check_size(type(self).__name__, size)
        self.scale, self.ratio, self.flip = scale, ratio, flip

    def draw(self, n: int, generator: torch.Generator) -> Drawn:
        """Draw area, aspect, place (−1 … 1 of the free way) and flip."""
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        drawn = dict(
            area=uniform(n, self.scale, generator),
            aspect=uniform(n, (low, high), generator).exp(),
            x_place=uniform(n, (-1.0, 1.0), generator),
            y_place=uniform(n, (-1.0, 1.0), generator),
        )
        if self.flip:
            drawn['flip'] = uniform(n, (0.0, 1.0), generator) < self.flip
        return drawn

    def prepare(self, drawn: Drawn, shape: torch.Size) -> Ready:
        """Return the N×2×3 matrices from the crop to the image."""
        # Half sizes in the normalised coordinates of affine_grid.
        height, width = shape[-2:]
        aspect = drawn['aspect'] * height / width
        w = (drawn['area'] * aspect).sqrt().clamp(max=1.0)
        h = (drawn['area'] / aspect).sqrt().clamp(max=1.0)
        cx = drawn['x_place'] * (1.0 - w)
        cy = drawn['y_place'] * (1.0 - h)
        if 'flip' in drawn:
            w = torch.where(drawn['flip'], -w, w)
        theta = torch.zeros(len(w), 2, 3)
        theta[:, 0, 0], theta[:, 0, 2] = w, cx
        theta[:, 1, 1], theta[:, 1, 2] = h, cy
        return dict(theta=theta)

    def shape_after(self, shape: torch.Size) -> torch.Size:
        """Return N×C×height×width."""
        return torch.Size([*shape[:2], *self.size])

    def act(self, x: Tensor, **ready: Any) -> Tensor:
        """Return N×C×height×width."""
        shape = list(self.shape_after(x.shape))
        grid = F.affine_grid(ready['theta'], shape, align_corners=False)
        return F.grid_sample(
            x, grid, padding_mode='border', align_corners=False
        )


@BATCH_AUGMENTS.register_module()
class BatchBrightnessContrast(BatchView):
    """Scale brightness, then contrast around each image's mean.

    For images of any number of channels; BatchColorJitter is torchvision's.

    Args:
        brightness: Factors are drawn from [1 − b, 1 + b].
        contrast: Factors are drawn from [1 − c, 1 + c].
        prob: Probability that a sample is changed at all.
    """

    def __init__(
        self, brightness: float = 0.4, contrast: float = 0.4, prob: float = 1.0
    ) -> None:
        super().__init__(prob)
        check_within(brightness=brightness, contrast=contrast)
        self.brightness, self.contrast = brightness, contrast

    def draw(self, n: int, generator: torch.Generator) -> Drawn:
        """Draw both factors."""
        b, c = self.brightness, self.contrast
        brightness = uniform(n, (1 - b, 1 + b), generator)
        contrast = uniform(n, (1 - c, 1 + c), generator)
        keep = ~self.choose(n, generator)
        return dict(
            brightness=brightness.masked_fill(keep, 1.0),
            contrast=contrast.masked_fill(keep, 1.0),
        )

    def prepare(self, drawn: Drawn, shape: torch.Size) -> Ready:
        """The factors are 1 for samples that stay."""
        return dict(drawn)

    def act(self, x: Tensor, **ready: Any) -> Tensor:
        """Return the images, clipped to [0, 255]."""
        x = x.mul_(per_image(ready['brightness'])).clamp_(0.0, 255.0)
        mean = x.mean((1, 2, 3), keepdim=True)
        contrast = per_image(ready['contrast'])
        return torch.lerp(mean, x, contrast).clamp_(0.0, 255.0)


def per_image(values: Tensor) -> Tensor:
    """Return N values as N×1×1×1."""
    return values[:, None, None, None]
