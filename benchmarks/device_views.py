"""Our batch operations against kornia's: speed, and distance to torchvision.

Both change the same crops at the same parameters, one for each sample; the
distance is the mean absolute difference to torchvision on PIL images, in
grey levels.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import Annotated, Any

import cv2
import numpy as np
import torch
from contenders import Device
from PIL import Image, ImageFilter
from roofline import fastest_device
from torch import Tensor
from torchvision.transforms import functional as official

from mmmoco.apis import cli
from mmmoco.datasets import ImageFolderDataset
from mmmoco.models.preprocessors import batch_photometric as ours

Change = Callable[[Tensor], Tensor]


def operations(n: int) -> dict[str, tuple[Any, Any, Any]]:
    """Return ours, kornia's and torchvision's, at the same parameters."""
    import kornia

    factor = torch.linspace(0.6, 1.4, n)
    shift = torch.linspace(-0.1, 0.1, n)
    sigma = torch.linspace(0.2, 2.0, n)
    every = torch.ones(n, dtype=torch.bool)
    enhance = kornia.enhance

    def unit(change: Change) -> Change:
        """Kornia works on values in [0, 1]."""
        return lambda x: change(x / 255.0) * 255.0

    def blurred(image: Image.Image, i: int) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(sigma[i].item()))

    return {
        'brightness': (
            lambda x: ours.adjust_brightness(x, factor),
            unit(lambda x: enhance.adjust_brightness_accumulative(x, factor)),
            lambda p, i: official.adjust_brightness(p, factor[i].item()),
        ),
        'contrast': (
            lambda x: ours.adjust_contrast(x, factor),
            unit(
                lambda x: enhance.adjust_contrast_with_mean_subtraction(
                    x, factor
                )
            ),
            lambda p, i: official.adjust_contrast(p, factor[i].item()),
        ),
        'saturation': (
            lambda x: ours.adjust_saturation(x, factor),
            unit(
                lambda x: enhance.adjust_saturation_with_gray_subtraction(
                    x, factor
                )
            ),
            lambda p, i: official.adjust_saturation(p, factor[i].item()),
        ),
        'hue': (
            lambda x: ours.adjust_hue(x, shift),
            unit(lambda x: enhance.adjust_hue(x, shift * 2 * torch.pi)),
            lambda p, i: official.adjust_hue(p, shift[i].item()),
        ),
        'blur': (
            lambda x: ours.BatchGaussianBlur().apply(
                x, acts=every, sigma=sigma
            ),
            unit(
                lambda x: kornia.filters.gaussian_blur2d(
                    x, (11, 11), sigma[:, None].expand(-1, 2), 'replicate'
                )
            ),
            blurred,
        ),
        'solarize': (
            lambda x: ours.BatchSolarize(128).apply(x, acts=every),
            unit(lambda x: enhance.solarize(x, 128 / 255)),
            lambda p, i: official.solarize(p, 128),
        ),
    }


def milliseconds(change: Change, x: Tensor, rounds: int) -> float:
    """Return the median time for an image."""
    seconds = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        change(x)
        if x.is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return 1000 * median(seconds[1:]) / len(x)


def benchmark(
    *,
    images: Annotated[str, {'metavar': 'DIR'}],
    batch: int = 32,
    rounds: int = 5,
    device: Device = None,
) -> None:
    """Our batch operations against kornia's: speed, and the distance.

    Args:
        images: Any folder of images.
        batch: Images that are changed at once.
        rounds: Times that each is measured.
        device: Where; default: a GPU if there is one.
    """
    torch.set_num_threads(1)
    where = device or fastest_device()
    cv2.setNumThreads(1)
    paths = ImageFolderDataset(images).paths[:batch]
    crops = [
        Image.open(p).convert('RGB').resize((224, 224), Image.Resampling.BOX)
        for p in paths
    ]
    arrays = np.stack([np.asarray(crop) for crop in crops])
    x = torch.from_numpy(arrays).permute(0, 3, 1, 2).float().to(where)
    print(f'{len(crops)} crops of 224 pixels on {where}, one thread\n')
    print(f'{"":12}{"ms/image":>18}{"distance":>18}')
    print(f'{"":12}{"ours":>9}{"kornia":>9}{"ours":>9}{"kornia":>9}')
    for name, (mine, theirs, reference) in operations(len(crops)).items():
        expected = np.stack(
            [np.asarray(reference(p, i), float) for i, p in enumerate(crops)]
        )
        times = [milliseconds(f, x, rounds) for f in (mine, theirs)]
        far = [
            np.abs(f(x).permute(0, 2, 3, 1).cpu().numpy() - expected).mean()
            for f in (mine, theirs)
        ]
        print(
            f'{name:12}'
            + ''.join(f'{value:9.2f}' for value in times)
            + ''.join(f'{value:9.3f}' for value in far)
        )


if __name__ == '__main__':
    cli.main(benchmark)
