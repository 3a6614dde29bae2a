"""Every parameter of every view over a dense grid, against its reference.

What is compared is the effective parameter (see ``strengths``), not only the
grey levels.
"""

import numpy as np
import torch
from PIL import Image, ImageFilter
from torchvision import transforms
from torchvision.transforms import functional as official

from mmmoco.datasets.transforms import pixel_ops
from mmmoco.datasets.transforms.bands import BandBrightnessContrast
from mmmoco.datasets.transforms.fast_views import (
    FastColorJitter,
    FastRandomResizedCrop,
)
from mmmoco.datasets.transforms.satellite import (
    DiscreteRotation,
    GaussianNoise,
)
from mmmoco.models.preprocessors import (
    BatchBrightnessContrast,
    BatchColorJitter,
    BatchRandomResizedCrop,
)
from mmmoco.models.preprocessors import batch_photometric as batch

from ...comparison import Comparison
from . import strengths

PIL = 'torchvision on PIL images'


def grid(low, high, step):
    """Both ends included."""
    count = round((high - low) / step) + 1
    return [round(low + i * step, 6) for i in range(count)]


def over(values):
    return f'{values[0]} … {values[-1]}, {len(values)} values'


def photograph():
    from sklearn.datasets import load_sample_images

    image = load_sample_images().images[0]
    return np.ascontiguousarray(image[100:260, 200:360])


def blurred(image, sigma):
    return image.filter(ImageFilter.GaussianBlur(sigma))


def of_batch(change):
    """A batch operation as one of an array and a number."""

    def of_image(image, value):
        x = torch.from_numpy(image).permute(2, 0, 1)[None].float()
        y = change(x, torch.tensor([float(value)]))
        return y[0].permute(1, 2, 0).numpy()

    return of_image


ACTS = torch.ones(1, dtype=torch.bool)


def blur_batch(x, sigma):
    blur = batch.BatchGaussianBlur((0.0, float(sigma)))
    return blur.apply(x, acts=ACTS, sigma=sigma)


def solarize_batch(x, threshold):
    return batch.BatchSolarize(int(threshold)).apply(x, acts=ACTS)


FACTORS = grid(0.0, 2.0, 0.05)
SHIFTS = grid(-0.48, 0.48, 0.02)
SIGMAS = grid(0.025, 2.0, 0.025) + grid(2.25, 5.0, 0.25)
RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)

#: Name → worker's, device's, PIL's, grid, and what is measured: name, image,
#: how, unit, bound for the worker, bound for the device. On the device
#: nothing is rounded to whole levels: PIL cuts brightness off by half a
#: level, and its hue by half of 1/255 of the circle.
OPERATIONS = {
    'brightness': (
        pixel_ops.adjust_brightness,
        of_batch(batch.adjust_brightness),
        official.adjust_brightness,
        FACTORS,
        [
            (
                'factor',
                lambda: strengths.patches(20, 120, 20),
                strengths.gain,
                '',
                0.001,
                0.01,
            )
        ],
    ),
    'contrast': (
        pixel_ops.adjust_contrast,
        of_batch(batch.adjust_contrast),
        official.adjust_contrast,
        FACTORS,
        [
            (
                'factor',
                lambda: strengths.patches(100, 156, 10),
                strengths.spread,
                '',
                0.001,
                0.002,
            )
        ],
    ),
    'saturation': (
        pixel_ops.adjust_saturation,
        of_batch(batch.adjust_saturation),
        official.adjust_saturation,
        FACTORS,
        [
            (
                'factor',
                lambda: strengths.patches(80, 176, 30),
                strengths.chroma,
                '',
                0.001,
                0.001,
            )
        ],
    ),
    'hue': (
        pixel_ops.adjust_hue,
        of_batch(batch.adjust_hue),
        official.adjust_hue,
        SHIFTS,
        [
            (
                'turn',
                lambda: strengths.patches(0, 255, 100),
                strengths.turn,
                'circles',
                0.0025,
                0.0025,
            ),
            (
                'colourfulness',
                lambda: strengths.patches(0, 255, 100),
                strengths.colour,
                '',
                0.005,
                0.005,
            ),
        ],
    ),
    'solarize': (
        lambda image, v: pixel_ops.solarize(image, int(v)),
        of_batch(solarize_batch),
        lambda image, v: official.solarize(image, int(v)),
        grid(0, 255, 1),
        [
            (
                'share inverted',
                lambda: RAMP,
                strengths.inverted,
                '',
                0.0,
                0.0,
            )
        ],
    ),
    'blur': (
        pixel_ops.gaussian_blur,
        of_batch(blur_batch),
        blurred,
        SIGMAS,
        [
            # PIL rounds after each of six passes: it keeps an edge of 255
            # levels below σ = 0.12, a point's tails above 2, and what a
            # small σ would take from a photograph.
            (
                'σ of an edge',
                strengths.edge,
                strengths.edge_width,
                'pixels',
                0.005,
                0.12,
            ),
            (
                'σ of a point',
                strengths.point,
                strengths.point_width,
                'pixels',
                0.05,
                0.6,
            ),
            (
                'detail left',
                photograph,
                strengths.detail,
                '',
                0.005,
                0.04,
            ),
        ],
    ),
}


def compare_strengths(name):
    """What the operation does over its grid, worker and device."""
    worker, device, theirs, values, measures = OPERATIONS[name]
    for measure, make, read, unit, *bounds in measures:
        image = make()
        pil = Image.fromarray(image)
        expected = [read(image, np.asarray(theirs(pil, v))) for v in values]
        for where, ours, bound in zip(
            ('worker', 'device'), (worker, device), bounds, strict=True
        ):
            found = [read(image, ours(image, v)) for v in values]
            yield Comparison(
                f'{name}, {where}: {measure}',
                PIL,
                float(np.abs(np.subtract(found, expected)).max()),
                bound,
                unit,
                over(values),
            )


def compare_blur_with_its_name():
    """On the device the deviation is σ itself, of a point and of an edge."""
    ours = of_batch(blur_batch)
    for name, image, read in (
        ('edge', strengths.edge(), strengths.edge_width),
        ('point', strengths.point(), strengths.point_width),
    ):
        sigmas = [s for s in SIGMAS if s <= 3]  # else the frame cuts it off
        found = [read(image, ours(image, s)) for s in sigmas]
        yield Comparison(
            f'blur, device: σ of the {name}',
            'σ itself',
            float(np.abs(np.subtract(found, sigmas)).max()),
            0.001,
            'pixels',
            over(sigmas),
        )


def compare_pixels(name):
    """Mean difference in grey levels, the worst of the grid."""
    worker, device, theirs, values, _ = OPERATIONS[name]
    image = photograph()
    pil = Image.fromarray(image)
    values = values[:: max(1, len(values) // 20)]
    # What is not rounded on the device differs by half a level.
    for where, ours, bound in (('worker', worker, 0.7), ('device', device, 1)):
        found = [
            np.abs(
                ours(image, v).astype(float) - np.asarray(theirs(pil, v))
            ).mean()
            for v in values
        ]
        yield Comparison(
            f'{name}, {where}: a photograph',
            PIL,
            float(max(found)),
            bound,
            'grey levels, mean',
            over(values),
        )


def compare_grey():
    """All shades at once."""
    image = strengths.patches(0, 255, 100)
    expected = np.asarray(
        official.rgb_to_grayscale(Image.fromarray(image), 3), float
    )
    device = of_batch(lambda x, _: batch.BatchGrayscale().apply(x, acts=ACTS))
    for where, made, bound in (
        ('worker', pixel_ops.grayscale(image), 1),
        ('device', device(image, 0), 0.6),
    ):
        yield Comparison(
            f'greyscale, {where}',
            PIL,
            float(np.abs(made - expected).max()),
            bound,
            'grey levels',
        )


# ------------------------------------------------------------------- crops


def compare_crops():
    """Boxes of all sizes and places: where a pixel comes from, how sharp.

    A ramp tells from which place of the image each pixel was taken.
    """
    draws = np.random.default_rng(0)
    side = 256
    ramp = np.empty((side, side, 3), np.uint8)
    ramp[..., 0] = np.arange(side)[None]
    ramp[..., 1] = np.arange(side)[:, None]
    ramp[..., 2] = 128
    noise = draws.integers(0, 256, (side, side, 3), dtype=np.uint8)
    place, sharp, count = [], [], 0
    for size in (32, 96, 224):
        for height in (8, 24, 60, 96, 150, 224, 256):
            for width in (8, 31, 96, 128, 200, 256):
                top = int(draws.integers(side - height + 1))
                left = int(draws.integers(side - width + 1))
                box = (top, left, height, width)
                for image, kept in ((ramp, place), (noise, sharp)):
                    made = pixel_ops.crop_resize(image, *box, size)
                    theirs = np.asarray(
                        official.resized_crop(
                            Image.fromarray(image), *box, [size, size]
                        )
                    )
                    if kept is place:
                        kept.append(np.abs(made.astype(float) - theirs).max())
                    else:
                        kept.append(
                            strengths.detail(noise, made)
                            - strengths.detail(noise, theirs)
                        )
                count += 1
    boxes = f'{count} boxes, results of 32, 96, 224 pixels'
    yield Comparison('crop: place', PIL, float(max(place)), 1, 'pixels', boxes)
    yield Comparison(
        'crop: detail left',
        PIL,
        float(np.abs(sharp).max()),
        0.005,
        '',
        boxes,
    )


def compare_boxes(draws=150):
    """Means of what is drawn over a grid of settings, in standard errors."""
    np.random.seed(0)
    torch.manual_seed(0)
    worst, settings = 0.0, 0
    for low in (0.08, 0.2, 0.5, 0.9):
        for high in (0.4, 0.7, 1.0):
            for ratio in ((3 / 4, 4 / 3), (0.5, 2.0), (1.0, 1.0)):
                for shape in ((96, 96), (60, 200), (300, 40)):
                    if low > high:
                        continue
                    scale = (low, high)
                    crop = FastRandomResizedCrop(8, scale, ratio)
                    ours = np.array(
                        [
                            list(crop.draw(*shape).values())
                            for _ in range(draws)
                        ],
                        float,
                    )
                    image = torch.empty(1, *shape)
                    theirs = np.array(
                        [
                            transforms.RandomResizedCrop.get_params(
                                image, scale, ratio
                            )
                            for _ in range(draws)
                        ],
                        float,
                    )
                    worst = max(
                        worst,
                        standard_errors(*map(box_numbers, (ours, theirs))),
                    )
                    settings += 1
    yield Comparison(
        'crop: place, area and ratio drawn',
        'torchvision',
        worst,
        5.0,
        'standard errors',
        f'{settings} settings, {draws} draws',
    )


def box_numbers(boxes):
    top, left, height, width = boxes.T
    return np.stack([top, left, height * width, np.log(width / height)])


def standard_errors(ours, theirs):
    """Largest difference of the means, in units of its standard error."""
    error = np.sqrt((ours.var(1) + theirs.var(1)) / ours.shape[1])
    difference = np.abs(ours.mean(1) - theirs.mean(1))
    return float((difference / np.maximum(error, 1e-6)).max())


def compare_factors(draws=400):
    """Range and mean of what the jitter draws, over a grid of widths."""
    np.random.seed(0)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    widths = grid(0.1, 1.0, 0.1)
    found = {'worker': 0.0, 'device': 0.0}
    outside = 0
    for width in widths:
        hue = width / 2
        given = (width, width, width, hue)
        theirs = transforms.ColorJitter(*given)
        expected = np.array(
            [
                theirs.get_params(
                    theirs.brightness,
                    theirs.contrast,
                    theirs.saturation,
                    theirs.hue,
                )[1:]
                for _ in range(draws)
            ],
            float,
        ).T
        jitter = FastColorJitter(*given)
        names = ('brightness', 'contrast', 'saturation', 'hue')
        worker = np.array(
            [
                [drawn[name] for name in names]
                for drawn in (jitter.draw(8, 8) for _ in range(draws))
            ]
        ).T
        drawn = BatchColorJitter(*given).draw(draws, generator)
        device = drawn['factors'].numpy().T.astype(float)
        centre = np.array([1.0, 1.0, 1.0, 0.0])[:, None]
        for where, x in (('worker', worker), ('device', device)):
            far = np.abs(x - centre)
            limit = np.array(given)[:, None]
            outside += int((far > limit + 1e-6).sum())
            # Mean and width, for each of the four.
            found[where] = max(
                found[where],
                standard_errors(x, expected),
                standard_errors(far, np.abs(expected - centre)),
            )
    for where, worst in found.items():
        yield Comparison(
            f'jitter, {where}: factors drawn',
            'torchvision',
            worst if not outside else float('inf'),
            5.0,
            'standard errors',
            f'{over(widths)}, {draws} draws',
        )


# ------------------------------------------------- what torchvision lacks


def compare_rotations():
    """Quarter turns of any sign, against PIL's, and worker with device."""
    image = photograph()
    wrong = 0.0
    angles = grid(-720, 720, 90)
    for angle in angles:
        expected = np.asarray(
            Image.fromarray(image).rotate(angle, expand=True)
        )
        worker = DiscreteRotation((int(angle),)).apply(image, angle=int(angle))
        op = batch.BatchDiscreteRotation((int(angle),))
        drawn = op.draw(1, torch.Generator())
        device = of_batch(lambda x, _, o=op, d=drawn: o.apply(x, **d))
        for made in (worker, device(image, 0)):
            wrong = max(
                wrong, float(np.abs(made - expected.astype(float)).max())
            )
    yield Comparison(
        'rotation, worker and device',
        'PIL',
        wrong,
        0,
        'grey levels',
        over(angles),
    )


def compare_noise():
    """Deviation over a grid; integers add that of their rounding."""
    deviations = grid(0.5, 30.0, 0.5)
    for where, dtype in (
        ('worker, uint8', np.uint8),
        ('worker, uint16', np.uint16),
        ('worker, float32', np.float32),
        ('device', None),
    ):
        worst = 0.0
        for seed, std in enumerate(deviations):
            if dtype is None:
                x = torch.full((1, 3, 96, 96), 128.0)
                op = batch.BatchGaussianNoise(std, prob=1.0)
                y = op(x, torch.Generator().manual_seed(seed)) - x
                found, rounding = float(y.std()), 0.0
            else:
                image = np.full((96, 96, 3), 128, dtype)
                op = GaussianNoise(std, prob=1.0)
                made = op.apply(image, seed=seed).astype(float)
                # What the limits of the bytes cut off is left out.
                found = float((made - 128.0).std())
                rounding = 0.0 if dtype == np.float32 else 1 / 12
            worst = max(worst, abs(found / np.sqrt(std**2 + rounding) - 1))
        yield Comparison(
            f'noise, {where}: deviation',
            'its formula',
            worst,
            0.025,
            'relative',
            over(deviations),
        )


def compare_bands():
    """Brightness and contrast of any bands, both factors at once."""
    image = strengths.patches(70, 130, 20)
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    worst = {'worker, uint8': 0.0, 'worker, float32': 0.0, 'device': 0.0}
    factors = grid(0.5, 1.5, 0.1)
    for b in factors:
        for c in factors:
            worker = BandBrightnessContrast()
            device = BatchBrightnessContrast()
            made = {
                'worker, uint8': worker.apply(image, brightness=b, contrast=c),
                'worker, float32': worker.apply(
                    image.astype(np.float32), brightness=b, contrast=c
                ),
                'device': device.apply(
                    x, brightness=torch.tensor([b]), contrast=torch.tensor([c])
                )[0]
                .permute(1, 2, 0)
                .numpy(),
            }
            for where, out in made.items():
                level = out.astype(float).mean() / image.mean()
                contrast = strengths.spread(
                    image - image.mean((0, 1)), out - out.mean((0, 1))
                )
                apart = max(abs(level - b), abs(contrast - b * c))
                worst[where] = max(worst[where], apart)
    for where, apart in worst.items():
        yield Comparison(
            f'brightness and contrast of bands, {where}',
            'the two factors',
            apart,
            # Whole levels follow a slope near 1 by steps.
            0.015 if 'uint8' in where else 0.001,
            '',
            over(factors) + ' each',
        )


def compare_batch_crop():
    """The crop on the device, inside the box; what it draws."""
    side, size = 64, 32
    draws = np.random.default_rng(0)
    x = torch.from_numpy(draws.uniform(0, 255, (1, 3, side, side))).float()
    crop, worst, boxes = BatchRandomResizedCrop(size), 0.0, 0
    for height in range(12, side + 1, 4):
        for width in range(12, side + 1, 4):
            top = int(draws.integers(side - height + 1))
            left = int(draws.integers(side - width + 1))
            h, w = height / side, width / side

            def place(start, share):
                free = 1.0 - share
                centre = 2.0 * start / side + share - 1.0
                return torch.tensor([centre / free if free else 0.0])

            made = crop.apply(
                x,
                area=torch.tensor([h * w]),
                aspect=torch.tensor([w / h]),
                x_place=place(left, w),
                y_place=place(top, h),
            )
            theirs = official.resized_crop(
                x, top, left, height, width, [size, size], antialias=False
            )
            # At the edge theirs knows nothing beyond the box, ours does.
            inner = slice(2, -2)
            apart = (made - theirs)[..., inner, inner].abs().max()
            worst, boxes = max(worst, float(apart)), boxes + 1
    yield Comparison(
        'crop, device: inside of the box',
        'torchvision without antialiasing',
        worst,
        0.05,
        'grey levels',
        f'{boxes} boxes',
    )
    # Too long a side is cut off here, and drawn again by torchvision.
    drawn = crop.draw(4000, torch.Generator().manual_seed(0))
    w = (drawn['area'] * drawn['aspect']).sqrt().clamp(max=1.0)
    h = (drawn['area'] / drawn['aspect']).sqrt().clamp(max=1.0)
    torch.manual_seed(0)
    image = torch.empty(1, side, side)
    theirs = np.array(
        [
            transforms.RandomResizedCrop.get_params(
                image, crop.scale, crop.ratio
            )
            for _ in range(1000)
        ],
        float,
    )
    area = (theirs[:, 2] * theirs[:, 3]).mean() / side**2
    yield Comparison(
        'crop, device: mean area drawn',
        'torchvision, which draws again what does not fit',
        abs(float((w * h).mean()) - area),
        0.05,
        'of the image',
        f'scale {crop.scale}',
    )


def all_comparisons():
    """Yield every comparison of the views."""
    for name in OPERATIONS:
        yield from compare_strengths(name)
        yield from compare_pixels(name)
    for compare in (
        compare_blur_with_its_name,
        compare_grey,
        compare_crops,
        compare_boxes,
        compare_factors,
        compare_rotations,
        compare_noise,
        compare_bands,
        compare_batch_crop,
    ):
        yield from compare()
