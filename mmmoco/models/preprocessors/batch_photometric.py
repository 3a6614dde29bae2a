"""The papers' operations after the crop, for a whole batch.

At given parameters each equals torchvision's on PIL images, but for PIL's
rounding to whole grey levels after every step.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmmoco.functional import blur_radius, blur_taps
from mmmoco.registry import BATCH_AUGMENTS

from .batch_views import BatchView, Drawn, Range, check_range, per_image
from .batch_views import uniform as draw_uniform

#: PIL's weights of grey (ITU-R 601-2).
GREY = (0.299, 0.587, 0.114)


def change_some(
    x: Tensor, acts: Tensor, change: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Change the samples where ``acts`` is true.

    Args:
        x: N×C×H×W.
        acts: N booleans, on the CPU.
        change: From the chosen samples and their indices (on the CPU) to
            the changed ones.
    """
    chosen = acts.nonzero()[:, 0]
    if len(chosen) == 0:
        return x
    if len(chosen) == len(x):
        return change(x, chosen)
    place = chosen.to(x.device)
    return x.index_copy(0, place, change(x[place], chosen))


def grey_of(x: Tensor) -> Tensor:
    """Return N×1×H×W grey values of RGB images."""
    if x.shape[1] != 3:
        raise ValueError(
            f'Colours are defined for RGB; the batch has {x.shape[1]} '
            'channels.'
        )
    r, g, b = x.unbind(1)
    grey = GREY[0] * r + GREY[1] * g + GREY[2] * b
    return grey[:, None]


def adjust_brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply by the factor of each image."""
    return (x * per_image(factor, x)).clamp(0.0, 255.0)


def adjust_contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Scale the distance from each image's mean grey."""
    mean = grey_of(x).mean((2, 3), keepdim=True)
    return torch.lerp(mean, x, per_image(factor, x)).clamp(0.0, 255.0)


def adjust_saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Scale the distance from each pixel's grey."""
    return torch.lerp(grey_of(x), x, per_image(factor, x)).clamp(0.0, 255.0)


def adjust_hue(x: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue in HSV by ``shift`` of a circle.

    The shift is cut off to whole steps, of which 256 make a circle, as
    torchvision does on PIL images.
    """
    shift = (shift * 255.0).trunc() / 256.0
    value, brightest = x.max(1)
    chroma = value - x.min(1).values
    r, g, b = x.unbind(1)
    # Hue in sixths of the circle, from the brightest channel on.
    sector = torch.stack([g - b, b - r, r - g], 1)
    sector = sector.gather(1, brightest[:, None])[:, 0]
    hue = sector / chroma.clamp(min=1e-6) + 2.0 * brightest
    hue = hue + 6.0 * shift.to(x)[:, None, None]
    offsets = torch.tensor([5.0, 3.0, 1.0], device=x.device)
    k = (hue[:, None] + offsets.view(1, 3, 1, 1)) % 6.0
    part = torch.minimum(k, 4.0 - k).clamp(0.0, 1.0)
    return value[:, None] - chroma[:, None] * part


def _with_own(
    adjust: Callable[[Tensor, Tensor], Tensor], factors: Tensor
) -> Callable[[Tensor, Tensor], Tensor]:
    """Give each of the chosen samples its own factor."""
    return lambda part, at: adjust(part, factors[at])


ADJUST = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)


@BATCH_AUGMENTS.register_module()
class BatchColorJitter(BatchView):
    """Change brightness, contrast, saturation and hue of RGB images.

    As torchvision's ColorJitter, the order too is drawn for each sample.

    Args:
        brightness: Half width of the range of the factor, at most 1.
        contrast: Likewise.
        saturation: Likewise.
        hue: Largest shift in circles, at most 0.5.
        prob: Probability that the operation acts on a sample.
    """

    def __init__(
        self,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
        prob: float = 1.0,
    ) -> None:
        super().__init__(prob)
        self.widths = (brightness, contrast, saturation, hue)
        for name, width, most in zip(
            ('brightness', 'contrast', 'saturation', 'hue'),
            self.widths,
            (1.0, 1.0, 1.0, 0.5),
            strict=True,
        ):
            check_range(name, (0.0, width), most)

    def draw(self, n: int, generator: torch.Generator) -> Drawn:
        """Draw N×4 factors, and the N×4 order in which they apply."""
        widths = torch.tensor(self.widths)
        neutral = torch.tensor([1.0, 1.0, 1.0, 0.0])
        spread = torch.rand(n, 4, generator=generator) * 2 - 1
        return dict(
            acts=self.choose(n, generator),
            factors=neutral + spread * widths,
            order=torch.rand(n, 4, generator=generator).argsort(1),
        )

    def apply(self, x: Tensor, **drawn: Tensor) -> Tensor:
        """Apply the factors, sample by sample in its order."""
        used = [i for i, width in enumerate(self.widths) if width]
        for place in range(len(self.widths)):
            turn = drawn['order'][:, place]
            for i in used:
                change = _with_own(ADJUST[i], drawn['factors'][:, i])
                x = change_some(x, drawn['acts'] & (turn == i), change)
        return x


@BATCH_AUGMENTS.register_module()
class BatchGrayscale(BatchView):
    """Replace the colours by grey, in three equal channels.

    Args:
        prob: Probability that the operation acts on a sample.
    """

    def __init__(self, prob: float = 0.2) -> None:
        super().__init__(prob)

    def draw(self, n: int, generator: torch.Generator) -> Drawn:
        """Draw which samples turn grey."""
        return dict(acts=self.choose(n, generator))

    def apply(self, x: Tensor, **drawn: Tensor) -> Tensor:
        """Return the images, some of them grey."""
        return change_some(
            x, drawn['acts'], lambda part, _: grey_of(part).expand_as(part)
        )


@BATCH_AUGMENTS.register_module()
class BatchGaussianBlur(BatchView):
    """Blur as PIL does: an extended box, three times along each axis.

    Args:
        sigma: Range of the standard deviation in pixels.
        prob: Probability that the operation acts on a sample.
    """

    def __init__(self, sigma: Range = (0.1, 2.0), prob: float = 0.5) -> None:
        super().__init__(prob)
        check_range('sigma', sigma)
        self.sigma = sigma
        self.radius = blur_radius(sigma[1])

    def draw(self, n: int, generator: torch.Generator) -> Drawn:
        """Draw σ, and which samples are blurred."""
        return dict(
            acts=self.choose(n, generator),
            sigma=draw_uniform(n, self.sigma, generator),
        )

    def apply(self, x: Tensor, **drawn: Tensor) -> Tensor:
        """Return the images, some of them blurred."""
        return change_some(
            x,
            drawn['acts'],
            lambda part, at: self._blur(part, drawn['sigma'][at]),
        )

    def _blur(self, x: Tensor, sigma: Tensor) -> Tensor:
        taps = blur_taps(sigma, self.radius).to(x)
        n, channels, height, width = x.shape
        # One group for each channel of each sample, since σ differs.
        taps = taps.repeat_interleave(channels, 0)[:, None]
        flat = x.reshape(1, n * channels, height, width)
        flat = F.pad(flat, [self.radius] * 4, mode='replicate')
        flat = F.conv2d(flat, taps[:, :, None], groups=n * channels)
        flat = F.conv2d(flat, taps[..., None], groups=n * channels)
        return flat.view(n, channels, height, width)


@BATCH_AUGMENTS.register_module()
class BatchSolarize(BatchView):
    """Invert the bright pixels (BYOL, MoCo v3).

    Args:
        threshold: The darkest grey level that is inverted.
        prob: Probability that the operation acts on a sample.
    """

    def __init__(self, threshold: int = 128, prob: float = 0.2) -> None:
        super().__init__(prob)
        self.threshold = threshold

    def draw(self, n: int, generator: torch.Generator) -> Drawn:
        """Draw which samples are solarised."""
        return dict(acts=self.choose(n, generator))

    def apply(self, x: Tensor, **drawn: Tensor) -> Tensor:
        """Return the images, some of them solarised."""
        return change_some(
            x,
            drawn['acts'],
            lambda part, _: torch.where(
                part >= self.threshold, 255.0 - part, part
            ),
        )


@BATCH_AUGMENTS.register_module()
class BatchFlip(BatchView):
    """Mirror the images.

    Args:
        horizontal: Probability of exchanging left and right.
        vertical: Probability of exchanging top and bottom.
    """

    def __init__(self, horizontal: float = 0.5, vertical: float = 0.0) -> None:
        super().__init__()
        check_range('horizontal', (0.0, horizontal), 1.0)
        check_range('vertical', (0.0, vertical), 1.0)
        self.horizontal, self.vertical = horizontal, vertical

    def draw(self, n: int, generator: torch.Generator) -> Drawn:
        """Draw both directions, independently."""
        return dict(
            horizontal=draw_uniform(n, (0.0, 1.0), generator)
            < self.horizontal,
            vertical=draw_uniform(n, (0.0, 1.0), generator) < self.vertical,
        )

    def apply(self, x: Tensor, **drawn: Tensor) -> Tensor:
        """Return the images, mirrored as drawn."""
        x = change_some(x, drawn['horizontal'], lambda part, _: part.flip(3))
        return change_some(x, drawn['vertical'], lambda part, _: part.flip(2))


@BATCH_AUGMENTS.register_module()
class BatchDiscreteRotation(BatchView):
    """Rotate by a multiple of 90 degrees: a permutation of the pixels.

    Args:
        angles: Degrees to choose from, multiples of 90.
        prob: Probability that the operation acts on a sample.
    """

    def __init__(
        self, angles: tuple[int, ...] = (0, 90, 180, 270), prob: float = 1.0
    ) -> None:
        super().__init__(prob)
        if not angles or any(angle % 90 for angle in angles):
            raise ValueError(f'angles={angles} must be multiples of 90.')
        self.turns = torch.tensor([angle // 90 % 4 for angle in angles])

    def draw(self, n: int, generator: torch.Generator) -> Drawn:
        """Draw the number of quarter turns, counter-clockwise."""
        chosen = torch.randint(len(self.turns), (n,), generator=generator)
        return dict(turns=self.turns[chosen] * self.choose(n, generator))

    def apply(self, x: Tensor, **drawn: Tensor) -> Tensor:
        """Return the rotated images.

        Raises:
            ValueError: If images that are not square would be turned over.
        """
        turns = drawn['turns']
        if x.shape[2] != x.shape[3] and bool((turns % 2).any()):
            raise ValueError(
                f'Images of {x.shape[2]}×{x.shape[3]} pixels cannot turn by '
                '90 degrees in a batch; crop them to squares first.'
            )
        x = change_some(x, turns == 1, lambda part, _: part.rot90(1, (2, 3)))
        x = change_some(x, turns == 2, lambda part, _: part.rot90(2, (2, 3)))
        x = change_some(x, turns == 3, lambda part, _: part.rot90(3, (2, 3)))
        return x


@BATCH_AUGMENTS.register_module()
class BatchGaussianNoise(BatchView):
    """Add Gaussian noise, independent for each value, before normalisation.

    Args:
        std: Standard deviation in units of the pixels; one value, or one for
            each band.
        prob: Probability that the operation acts on a sample.
    """

    def __init__(
        self, std: float | Sequence[float] = 5.0, prob: float = 0.5
    ) -> None:
        super().__init__(prob)
        self.std = torch.tensor(std, dtype=torch.float32).view(-1, 1, 1)
        if bool((self.std < 0).any()):
            raise ValueError(f'std={std} must be at least 0.')

    def draw(self, n: int, generator: torch.Generator) -> Drawn:
        """Draw which samples get noise, and its seed."""
        return dict(
            acts=self.choose(n, generator),
            seed=torch.randint(2**62, (1,), generator=generator),
        )

    def apply(self, x: Tensor, **drawn: Tensor) -> Tensor:
        """Return the images with noise; it is drawn where they lie."""
        noise = torch.Generator(device=x.device)
        noise.manual_seed(int(drawn['seed']))

        def add(part: Tensor, _: Tensor) -> Tensor:
            unit = torch.randn(part.shape, generator=noise, device=x.device)
            return part + unit * self.std.to(x)

        return change_some(x, drawn['acts'], add)
