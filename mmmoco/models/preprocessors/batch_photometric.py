"""The papers' operations after the crop, for a whole batch.

At given parameters each equals torchvision's on PIL images, but for PIL's
rounding to whole grey levels after every step.
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmmoco.functional import (
    Range,
    blur_radius,
    blur_taps,
    check_range,
    check_within,
)
from mmmoco.registry import BATCH_AUGMENTS

from .batch_views import (
    BatchView,
    Drawn,
    Ready,
    change_some,
    per_image,
    uniform,
    which,
)

#: PIL's weights of grey (ITU-R 601-2).
GREY = (0.299, 0.587, 0.114)

#: What torchvision's ColorJitter does, by the columns of its draws.
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


def require_rgb(shape: torch.Size) -> None:
    """Refuse images without colours.

    Raises:
        ValueError: If there are not three channels.
    """
    if shape[1] != 3:
        raise ValueError(
            f'Colours are defined for RGB; the batch has {shape[1]} channels: '
            'take the views of _base_/views/bands.py.'
        )


def grey_of(x: Tensor) -> Tensor:
    """Return N×1×H×W grey values of RGB images."""
    r, g, b = x.split(1, 1)
    grey = (GREY[0] * r).add_(g, alpha=GREY[1])
    return grey.add_(b, alpha=GREY[2])


def blend(
    x: Tensor, factor: Tensor, to_mean: Tensor, to_grey: Tensor
) -> Tensor:
    """Scale the distance of every pixel from black, mean grey or own grey.

    Args:
        x: N×3×H×W.
        factor: N factors of the distance.
        to_mean: 1 for a sample whose mean grey counts, else 0.
        to_grey: 1 for a sample whose own grey counts at every pixel, else 0.
    """
    grey = grey_of(x)
    mean = grey.mean((2, 3), keepdim=True).mul_(per_image(to_mean))
    base = torch.addcmul(mean, grey, per_image(to_grey))
    return torch.lerp(base, x, per_image(factor)).clamp_(0.0, 255.0)


def adjust_brightness(x: Tensor, factor: Tensor) -> Tensor:
    """Multiply by the factor of each image."""
    no = torch.zeros_like(factor)
    return blend(x, factor, no, no)


def adjust_contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Scale the distance from each image's mean grey."""
    no = torch.zeros_like(factor)
    return blend(x, factor, no + 1, no)


def adjust_saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Scale the distance from each pixel's grey."""
    no = torch.zeros_like(factor)
    return blend(x, factor, no, no + 1)


def adjust_hue(x: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue in HSV by ``shift`` of a circle.

    The shift is cut off to whole steps, of which 256 make a circle, as
    torchvision does on PIL images.
    """
    return turn_hue(x, hue_offsets(shift).to(x.device))


def hue_offsets(shift: Tensor) -> Tensor:
    """Return what a shift adds to the hue of each channel, N×3."""
    shift = (shift * 255.0).trunc() / 256.0
    return 6.0 * shift[:, None] + torch.tensor([5.0, 3.0, 1.0])


def turn_hue(x: Tensor, offsets: Tensor) -> Tensor:
    """Turn the hue in HSV.

    Args:
        x: N×3×H×W.
        offsets: From :func:`hue_offsets`, on the device of ``x``.
    """
    value, brightest = x.max(1, keepdim=True)
    chroma = value - x.amin(1, keepdim=True)
    # Hue in sixths of the circle, from the brightest channel on: g − b, b − r
    # or r − g.
    turned = torch.cat([x[:, 1:], x[:, :2]], 1)
    sector = (turned[:, :3] - turned[:, 1:]).gather(1, brightest)
    hue = sector.div_(chroma.clamp(min=1e-6)).add_(brightest, alpha=2)
    k = (hue + offsets[:, :, None, None]).remainder_(6.0)
    part = torch.minimum(k, 4.0 - k).clamp_(0.0, 1.0)
    return torch.addcmul(value, chroma, part, value=-1.0)


@BATCH_AUGMENTS.register_module()
class BatchColorJitter(BatchView):
    """Change brightness, contrast, saturation and hue of RGB images.

    As torchvision's ColorJitter, the order too is drawn for each sample.

    Args:
        brightness: Half width of the range of the factor, at most 1.
        contrast: The same for the contrast.
        saturation: The same for the saturation.
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
        check_within(
            brightness=brightness, contrast=contrast, saturation=saturation
        )
        check_within(0.5, hue=hue)
        self.widths = (brightness, contrast, saturation, hue)

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

    def prepare(self, drawn: Drawn, shape: torch.Size) -> Ready:
        """Divide the order of every sample into what is done at once.

        At most three of brightness, contrast and saturation come before the
        hue of a sample, and the others after it. In a round every sample
        takes its next one of them, whichever it is.
        """
        require_rgb(shape)
        acts, factors = drawn['acts'], drawn['factors']
        place = drawn['order'].argsort(1)  # N×4, the turn of each operation
        used = torch.tensor(self.widths) > 0
        does = acts[:, None] & used
        early = place < place[:, HUE:]
        ready: Ready = {}
        for part, chosen in (('before', early), ('after', ~early)):
            chosen = (does & chosen)[:, :HUE]
            turn = place[:, :HUE]
            earlier = chosen[:, None] & (turn[:, None] < turn[:, :, None])
            number = earlier.sum(2)  # how many come before it in this part
            for round_ in range(HUE):
                now = chosen & (number == round_)
                at = which(now.any(1))
                kind = now[at].int().argmax(1)
                ready[f'{part}_{round_}'] = at
                ready[f'{part}_{round_}_how'] = torch.stack(
                    [factors[at, kind], kind == CONTRAST, kind == SATURATION]
                )
        ready['hue'] = which(does[:, HUE])
        ready['offsets'] = hue_offsets(factors[ready['hue'], HUE])
        return ready

    def act(self, x: Tensor, **ready: Any) -> Tensor:
        """Apply the factors, sample by sample in its order."""

        def rounds(x: Tensor, part: str) -> Tensor:
            for round_ in range(HUE):
                factor, to_mean, to_grey = ready[f'{part}_{round_}_how']
                change = functools.partial(
                    blend, factor=factor, to_mean=to_mean, to_grey=to_grey
                )
                x = change_some(x, ready[f'{part}_{round_}'], change)
            return x

        x = rounds(x, 'before')
        x = change_some(
            x, ready['hue'], lambda part: turn_hue(part, ready['offsets'])
        )
        return rounds(x, 'after')


@BATCH_AUGMENTS.register_module()
class BatchGrayscale(BatchView):
    """Replace the colours by grey, in three equal channels.

    Args:
        prob: Probability that the operation acts on a sample.
    """

    def __init__(self, prob: float = 0.2) -> None:
        super().__init__(prob)

    def prepare(self, drawn: Drawn, shape: torch.Size) -> Ready:
        """Choose the samples."""
        require_rgb(shape)
        return super().prepare(drawn, shape)

    def change(self, x: Tensor, **ready: Any) -> Tensor:
        """Return grey images."""
        return grey_of(x).expand_as(x)


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
            sigma=uniform(n, self.sigma, generator),
        )

    def prepare(self, drawn: Drawn, shape: torch.Size) -> Ready:
        """Choose the samples, and make their filters."""
        at = which(drawn['acts'])
        if len(at) == 0:
            return dict(at=at, taps=None)
        return dict(at=at, taps=blur_taps(drawn['sigma'][at], self.radius))

    def change(self, x: Tensor, **ready: Any) -> Tensor:
        """Return blurred images."""
        n, channels, height, width = x.shape
        # One group for each channel of each sample, since σ differs.
        taps = ready['taps'].repeat_interleave(channels, 0)[:, None]
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

    def change(self, x: Tensor, **ready: Any) -> Tensor:
        """Return solarised images."""
        return torch.where(x >= self.threshold, 255.0 - x, x)


@BATCH_AUGMENTS.register_module()
class BatchFlip(BatchView):
    """Mirror the images.

    Args:
        horizontal: Probability of exchanging left and right.
        vertical: Probability of exchanging top and bottom.
    """

    def __init__(self, horizontal: float = 0.5, vertical: float = 0.0) -> None:
        super().__init__()
        check_within(horizontal=horizontal, vertical=vertical)
        self.horizontal, self.vertical = horizontal, vertical

    def draw(self, n: int, generator: torch.Generator) -> Drawn:
        """Draw both directions, independently."""
        return dict(
            horizontal=uniform(n, (0.0, 1.0), generator) < self.horizontal,
            vertical=uniform(n, (0.0, 1.0), generator) < self.vertical,
        )

    def prepare(self, drawn: Drawn, shape: torch.Size) -> Ready:
        """Choose the samples of both directions."""
        return {name: which(acts) for name, acts in drawn.items()}

    def act(self, x: Tensor, **ready: Any) -> Tensor:
        """Return the images, mirrored as drawn."""
        x = change_some(x, ready['horizontal'], lambda part: part.flip(3))
        return change_some(x, ready['vertical'], lambda part: part.flip(2))


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

    def prepare(self, drawn: Drawn, shape: torch.Size) -> Ready:
        """Choose the samples of every number of quarter turns.

        Raises:
            ValueError: If images that are not square would be turned over.
        """
        turns = drawn['turns']
        if shape[2] != shape[3] and bool((turns % 2).any()):
            raise ValueError(
                f'Images of {shape[2]}×{shape[3]} pixels cannot turn by '
                '90 degrees in a batch; crop them to squares first.'
            )
        return {f'by_{k}': which(turns == k) for k in (1, 2, 3)}

    def act(self, x: Tensor, **ready: Any) -> Tensor:
        """Return the rotated images."""
        for k in (1, 2, 3):
            turn = functools.partial(torch.rot90, k=k, dims=(2, 3))
            x = change_some(x, ready[f'by_{k}'], turn)
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

    def prepare(self, drawn: Drawn, shape: torch.Size) -> Ready:
        """Choose the samples; the seed stays a number of the host."""
        return dict(
            at=which(drawn['acts']), seed=int(drawn['seed']), std=self.std
        )

    def change(self, x: Tensor, **ready: Any) -> Tensor:
        """Return images with noise; it is drawn where they lie."""
        noise = torch.Generator(device=x.device)
        noise.manual_seed(ready['seed'])
        unit = torch.randn(x.shape, generator=noise, device=x.device)
        return x + unit.mul_(ready['std'])
