"""Each operation and the whole view, held against torchvision on PIL images.

The bound: mean absolute difference over the photographs at most 2 of 255
grey levels. A resize without antialiasing exceeds it.
"""

import sys

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from torchvision.transforms import functional as official

from mmmoco.datasets.transforms import pixel_ops
from mmmoco.datasets.transforms.pipeline import build_pipeline
from mmmoco.models.preprocessors import batch_photometric as batch

BOUND = 2.0


def blurred(image, sigma):
    return image.filter(ImageFilter.GaussianBlur(sigma))


#: Name → (ours, PIL's, parameters).
OPS = {
    'brightness': (
        pixel_ops.adjust_brightness,
        official.adjust_brightness,
        (0.6, 0.85, 1.15, 1.4),
    ),
    'contrast': (
        pixel_ops.adjust_contrast,
        official.adjust_contrast,
        (0.6, 0.85, 1.15, 1.4),
    ),
    'saturation': (
        pixel_ops.adjust_saturation,
        official.adjust_saturation,
        (0.6, 0.85, 1.15, 1.4),
    ),
    'hue': (
        pixel_ops.adjust_hue,
        official.adjust_hue,
        (-0.4, -0.1, 0.05, 0.1, 0.4),
    ),
    'blur': (pixel_ops.gaussian_blur, blurred, (0.1, 0.4, 0.7, 1.0, 1.5, 2.0)),
    'solarize': (pixel_ops.solarize, official.solarize, (0, 64, 128, 200)),
}


def distances(images, ours, theirs):
    """Mean absolute difference of each photograph, in grey levels."""
    found = []
    for image in images:
        a = np.asarray(ours(image), np.float64)
        b = np.asarray(theirs(Image.fromarray(image)), np.float64)
        assert a.shape == b.shape
        found.append(np.abs(a - b).mean())
    return np.array(found)


def report(name, found):
    sys.stdout.write(
        f'{name:24} mean {found.mean():.3f}  worst photo {found.max():.3f}\n'
    )


def boxes(images, seed):
    """A box for each image, as the crop draws them."""
    crop = build_pipeline([dict(type='FastRandomResizedCrop', size=224)])
    np.random.seed(seed)
    return [crop.transforms[0].draw(*image.shape[:2]) for image in images]


def resized(image, box):
    order = ('top', 'left', 'height', 'width')
    return official.resized_crop(image, *(box[k] for k in order), [224, 224])


@pytest.mark.parametrize('name', OPS)
def test_operation(crops, name):
    ours, theirs, parameters = OPS[name]
    for value in parameters:
        found = distances(
            crops,
            lambda image, v=value: ours(image, v),
            lambda image, v=value: theirs(image, v),
        )
        report(f'{name} {value}', found)
        assert found.mean() <= BOUND


def test_grayscale(crops):
    found = distances(
        crops,
        pixel_ops.grayscale,
        lambda image: official.rgb_to_grayscale(image, 3),
    )
    report('grayscale', found)
    assert found.mean() <= 0.1


def test_flips_are_exact(crops):
    image = crops[0][:, :200]
    for horizontal, vertical in ((1, 0), (0, 1), (1, 1), (0, 0)):
        expected = Image.fromarray(image)
        if horizontal:
            expected = official.hflip(expected)
        if vertical:
            expected = official.vflip(expected)
        made = pixel_ops.flip(image, horizontal, vertical)
        np.testing.assert_array_equal(made, np.asarray(expected))
        assert made.flags.c_contiguous


@pytest.mark.parametrize('channels', [1, 3, 5, 13])
@pytest.mark.parametrize('dtype', ['u1', 'i2', 'u4', 'f4', 'f8', 'i8', '?'])
def test_flips_move_any_type(dtype, channels):
    draws = np.random.default_rng(0)
    bits = draws.integers(0, 2, (7, 5, channels), dtype=np.uint8)
    image = (bits * 3).astype(dtype)
    if image.dtype.kind == 'f':
        image[0, 0] = np.nan
    for horizontal in (False, True):
        for vertical in (False, True):
            made = pixel_ops.flip(image, horizontal, vertical)
            expected = image[:, ::-1] if horizontal else image
            expected = expected[::-1] if vertical else expected
            np.testing.assert_array_equal(made, expected)
            assert made.dtype == image.dtype and made.flags.c_contiguous


def test_crop_and_the_two_resizes_of_opencv(photographs):
    """Ours is PIL's; INTER_LINEAR does not antialias, and must fail."""
    found = {'ours': [], 'INTER_AREA': [], 'INTER_LINEAR': []}
    for seed in range(3):
        for image, box in zip(photographs, boxes(photographs, seed)):
            y, x, h, w = box.values()
            cut = image[y : y + h, x : x + w]
            expected = np.asarray(resized(Image.fromarray(image), box), float)
            made = pixel_ops.crop_resize(image, size=224, **box)
            found['ours'].append(np.abs(made - expected).mean())
            if min(h, w) > 224:  # shrunk
                for name in ('INTER_AREA', 'INTER_LINEAR'):
                    other = cv2.resize(
                        cut, (224, 224), interpolation=getattr(cv2, name)
                    )
                    found[name].append(np.abs(other - expected).mean())
    for name, values in found.items():
        if values:
            report(f'crop, {name}', np.array(values))
    assert np.mean(found['ours']) <= 0.2


def test_a_resize_without_antialiasing_fails_the_bound(photographs):
    # Whole photographs, shrunk, as of those that training reads.
    image = np.concatenate(
        [np.concatenate(photographs[i : i + 2], 1) for i in (0, 2)]
        if len(photographs) == 8
        else photographs[:1]
    )
    expected = np.asarray(
        Image.fromarray(image).resize((160, 160), Image.BILINEAR), float
    )
    ours = pixel_ops.crop_resize(image, 0, 0, *image.shape[:2], 160)
    linear = cv2.resize(image, (160, 160), interpolation=cv2.INTER_LINEAR)
    assert np.abs(ours - expected).mean() <= 0.2
    assert np.abs(linear - expected).mean() > BOUND


def view_at(image, box, order, factors, sigma):
    """A whole view at given parameters, by our operations."""
    image = pixel_ops.crop_resize(image, size=224, **box)
    for name in order:
        adjust = getattr(pixel_ops, f'adjust_{name}')
        image = adjust(image, factors[name])
    image = pixel_ops.gaussian_blur(image, sigma)
    return pixel_ops.flip(image, True, False)


def official_at(image, box, order, factors, sigma):
    image = resized(image, box)
    for name in order:
        adjust = getattr(official, f'adjust_{name}')
        image = adjust(image, factors[name])
    return official.hflip(blurred(image, sigma))


def drawn_views(photographs, seed):
    """Image, box, order, factors and σ, drawn as in training."""
    jitter = build_pipeline(
        [
            dict(
                type='FastColorJitter',
                brightness=0.4,
                contrast=0.4,
                saturation=0.4,
                hue=0.1,
            )
        ]
    ).transforms[0]
    for image, box in zip(photographs, boxes(photographs, seed)):
        factors = jitter.draw(224, 224)
        yield image, box, list(factors), factors, np.random.uniform(0.1, 2.0)


def test_whole_view_in_a_worker(photographs):
    found = []
    for seed in range(3):
        for image, *drawn in drawn_views(photographs, seed):
            ours = view_at(image, *drawn).astype(float)
            theirs = official_at(Image.fromarray(image), *drawn)
            found.append(np.abs(ours - np.asarray(theirs)).mean())
    report('whole view, worker', np.array(found))
    assert np.mean(found) <= BOUND


def test_whole_view_on_the_device(photographs):
    """The crop by a worker, the rest by the batch operations."""
    names = ('brightness', 'contrast', 'saturation', 'hue')
    jitter = batch.BatchColorJitter(0.4, 0.4, 0.4, 0.1)
    blur = batch.BatchGaussianBlur((0.1, 2.0))
    flip = batch.BatchFlip()
    images, orders, factors, sigmas, expected = [], [], [], [], []
    for image, box, order, values, sigma in drawn_views(photographs, 0):
        images.append(pixel_ops.crop_resize(image, size=224, **box))
        # The operation at each turn, by number.
        orders.append([names.index(name) for name in order])
        factors.append([values[name] for name in names])
        sigmas.append(sigma)
        theirs = official_at(Image.fromarray(image), box, order, values, sigma)
        expected.append(np.asarray(theirs, np.float32))
    n = len(images)
    every = torch.ones(n, dtype=torch.bool)
    x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
    before = x.clone()
    y = jitter.apply(
        x,
        acts=every,
        factors=torch.tensor(factors),
        order=torch.tensor(orders),
    )
    y = blur.apply(y, acts=every, sigma=torch.tensor(sigmas))
    y = flip.apply(y, horizontal=every, vertical=~every)
    assert torch.equal(x, before)
    found = (y.permute(0, 2, 3, 1) - torch.tensor(np.stack(expected))).abs()
    found = found.mean((1, 2, 3)).numpy()
    report('whole view, device', found)
    assert found.mean() <= BOUND
    # With two operations exchanged the difference is no longer rounding.
    wrong = jitter.apply(
        x,
        acts=every,
        factors=torch.tensor(factors)[:, [1, 0, 2, 3]],
        order=torch.tensor(orders),
    )
    wrong = blur.apply(wrong, acts=every, sigma=torch.tensor(sigmas)).flip(3)
    difference = wrong.permute(0, 2, 3, 1) - torch.tensor(np.stack(expected))
    assert difference.abs().mean() > BOUND


@pytest.mark.parametrize('name', [*OPS, 'grayscale'])
def test_operation_for_a_batch(crops, name):
    """Every sample has its own parameter."""
    some = crops[:8]
    x = torch.from_numpy(np.stack(some)).permute(0, 3, 1, 2).float()
    every = torch.ones(len(some), dtype=torch.bool)
    if name == 'grayscale':
        y = batch.BatchGrayscale().apply(x, acts=every)
        values = [3] * len(some)
        theirs = official.rgb_to_grayscale
    elif name == 'solarize':
        y = batch.BatchSolarize(100).apply(x, acts=every)
        values, theirs = [100] * len(some), official.solarize
    else:
        _, theirs, parameters = OPS[name]
        values = [parameters[i % len(parameters)] for i in range(len(some))]
        given = torch.tensor(values)
        if name == 'blur':
            y = batch.BatchGaussianBlur().apply(x, acts=every, sigma=given)
        else:
            y = getattr(batch, f'adjust_{name}')(x, given)
    found = []
    for image, value, made in zip(some, values, y):
        expected = theirs(Image.fromarray(image), value)
        made = made.permute(1, 2, 0).numpy()
        found.append(np.abs(made - np.asarray(expected, float)).mean())
    report(f'batch, {name}', np.array(found))
    assert np.mean(found) <= BOUND / 2
