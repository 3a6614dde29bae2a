"""What is drawn, against torchvision's draws; and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as official

from mmmoco.apis import load_config
from mmmoco.datasets import ImageFolderDataset, SampleAddress
from mmmoco.datasets.transforms.fast_views import (
    FastColorJitter,
    FastFlip,
    FastGaussianBlur,
    FastGrayscale,
    FastRandomResizedCrop,
    FastSolarize,
)

DRAWS = 1500


def same_distribution(ours, theirs):
    """Two samples of one distribution (Kolmogorov–Smirnov, 1 in 10⁵)."""
    from scipy.stats import ks_2samp

    return ks_2samp(ours, theirs).pvalue > 1e-5


@pytest.mark.parametrize(
    'height, width, scale, ratio',
    [
        (48, 64, (0.2, 1.0), (3 / 4, 4 / 3)),
        (30, 300, (0.5, 1.0), (3 / 4, 4 / 3)),  # mostly the fallback
        (300, 20, (0.2, 1.0), (1 / 3, 3.0)),
        (1, 1, (0.2, 1.0), (3 / 4, 4 / 3)),
    ],
)
def test_boxes_are_those_of_torchvision(height, width, scale, ratio):
    crop = FastRandomResizedCrop(8, scale, ratio)
    np.random.seed(0)
    torch.manual_seed(0)
    ours = np.array(
        [list(crop.draw(height, width).values()) for _ in range(DRAWS)]
    )
    image = torch.empty(3, height, width)
    theirs = np.array(
        [
            official.RandomResizedCrop.get_params(image, scale, ratio)
            for _ in range(DRAWS)
        ]
    )
    top, left, h, w = ours.T
    assert (top >= 0).all() and (top + h <= height).all()
    assert (left >= 0).all() and (left + w <= width).all()
    for mine, other in zip(ours.T, theirs.T):
        assert same_distribution(mine, other)
    assert same_distribution(h * w, theirs[:, 2] * theirs[:, 3])
    # A narrower scale is told apart.
    narrow = FastRandomResizedCrop(8, (scale[0], 0.6), ratio)
    if height > 30 and height < 300:
        other = np.array(
            [list(narrow.draw(height, width).values()) for _ in range(DRAWS)]
        )
        assert not same_distribution(other[:, 2] * other[:, 3], h * w)


def test_factors_and_orders_are_those_of_torchvision():
    ours = FastColorJitter(0.4, 0.3, 0.2, 0.1)
    theirs = official.ColorJitter(0.4, 0.3, 0.2, 0.1)
    names = ('brightness', 'contrast', 'saturation', 'hue')
    np.random.seed(0)
    torch.manual_seed(0)
    drawn = [ours.draw(8, 8) for _ in range(DRAWS)]
    reference = [
        theirs.get_params(
            theirs.brightness, theirs.contrast, theirs.saturation, theirs.hue
        )
        for _ in range(DRAWS)
    ]
    for i, name in enumerate(names):
        assert same_distribution(
            [d[name] for d in drawn], [r[i + 1] for r in reference]
        )
    assert not same_distribution(
        [d['contrast'] for d in drawn], [r[1] for r in reference]
    )
    orders = {tuple(d) for d in drawn}
    assert len(orders) == 24
    first = np.mean([next(iter(d)) == 'hue' for d in drawn])
    assert 0.2 < first < 0.3


@pytest.mark.parametrize(
    'op, prob',
    [
        (FastColorJitter(0.4, prob=0.8), 0.8),
        (FastGrayscale(prob=0.2), 0.2),
        (FastGaussianBlur((1.0, 2.0), prob=0.5), 0.5),
        (FastSolarize(prob=0.1), 0.1),
        (FastFlip(horizontal=0.5), 0.5),
        (FastFlip(horizontal=0.0, vertical=0.3), 0.3),
    ],
)
def test_operations_act_as_often_as_they_say(op, prob):
    np.random.seed(0)
    image = np.random.randint(0, 256, (6, 6, 3), dtype=np.uint8)
    before = image.copy()
    acted = [
        not np.array_equal(op({'img': image})['img'], before)
        for _ in range(1500)
    ]
    assert abs(np.mean(acted) - prob) < 0.05
    np.testing.assert_array_equal(image, before)  # never in place


def test_parameters_are_noted_only_where_asked():
    image = np.zeros((6, 6, 3), np.uint8)
    blur = FastGaussianBlur((0.5, 0.5), prob=1.0)
    assert set(blur({'img': image})) == {'img'}
    noted = blur({'img': image, 'drawn': []})['drawn']
    assert noted == [('FastGaussianBlur', {'sigma': 0.5, 'changes': 0.0})]


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize('channels', [1, 2, 3, 4, 13])
def test_crop_and_flip_take_any_bands(dtype, channels):
    np.random.seed(0)
    top = 255 if dtype == np.uint8 else 10000
    image = (np.random.rand(20, 30, channels) * top).astype(dtype)
    crop = FastRandomResizedCrop(9, (0.3, 0.6))
    drawn = crop.draw(20, 30)
    made = crop.apply(image, **drawn)
    assert made.shape == (9, 9, channels) and made.dtype == dtype
    # Every band by itself, as PIL resizes a float image.
    y, x, h, w = drawn.values()
    for band in range(channels):
        cut = image[y : y + h, x : x + w, band].astype(np.float32)
        alone = Image.fromarray(cut).resize((9, 9), Image.BILINEAR)
        step = {np.uint8: 1.01, np.uint16: 0.6, np.float32: 0.01}[dtype]
        assert np.abs(made[..., band] - np.asarray(alone)).max() <= step
    flip = FastFlip(1.0, 1.0)({'img': image})['img']
    np.testing.assert_array_equal(flip, image[::-1, ::-1])
    assert flip.dtype == dtype


def test_one_pixel_becomes_a_view():
    image = np.full((1, 1, 3), 77, np.uint8)
    crop = FastRandomResizedCrop(8)({'img': image})['img']
    assert (crop == 77).all() and crop.shape == (8, 8, 3)


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
def test_a_rectangle_is_as_high_and_wide_as_said(dtype):
    """A square in a rectangle's place: the box is the same, then stretched."""
    image = np.zeros((20, 30, 2), dtype)
    image[:10] = 200  # The upper half stays the upper half.
    crop = FastRandomResizedCrop((8, 24), scale=(1.0, 1.0), ratio=(1.5, 1.5))
    made = crop({'img': image})['img']
    assert made.shape == (8, 24, 2) and made.dtype == dtype
    np.testing.assert_allclose(made[:3], 200, atol=1e-3)
    np.testing.assert_allclose(made[5:], 0, atol=1e-3)


@pytest.mark.parametrize(
    'size', [0, -1, 2.5, '8', (8,), (8, 0), (1, 2, 3), True, None]
)
def test_what_is_no_size_is_refused(size):
    with pytest.raises(ValueError, match='height, width'):
        FastRandomResizedCrop(size)


def test_mistakes_are_named():
    for make, text in (
        (lambda: FastRandomResizedCrop(0), 'size=0'),
        (lambda: FastRandomResizedCrop(8, scale=(0.0, 1.0)), 'scale'),
        (lambda: FastRandomResizedCrop(8, ratio=(2.0, 1.0)), 'ratio'),
        (lambda: FastColorJitter(hue=0.7), 'hue=0.7'),
        (lambda: FastColorJitter(brightness=-1), 'brightness'),
        (lambda: FastGaussianBlur((2.0, 1.0)), 'sigma'),
        (lambda: FastGrayscale(prob=2.0), 'prob=2.0'),
        (lambda: FastFlip(horizontal=1.5), '1.5'),
    ):
        with pytest.raises(ValueError, match=text):
            make()
    bands = np.zeros((6, 6, 4), np.uint8)
    with pytest.raises(ValueError, match='FastColorJitter.*RGB.*4'):
        FastColorJitter(0.4)({'img': bands})
    with pytest.raises(ValueError, match='float32'):
        FastSolarize(prob=1.0)({'img': np.zeros((6, 6, 3), np.float32)})


# ------------------------------------------------------------ many views


def folder_of(tmp_path):
    draws = np.random.default_rng(0)
    for i in range(3):
        noise = draws.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f'{i}.png')
    return str(tmp_path)


def test_multi_crop_is_a_config(tmp_path):
    views = load_config('_base_/views/multi_crop').views.to_dict()
    data = ImageFolderDataset(
        folder_of(tmp_path),
        pipeline=[dict(type='LoadRGB'), dict(type='Views', views=views)],
    )
    inputs = data[0]['inputs']
    sides = {name: x.shape[-1] for name, x in inputs.items()}
    assert sides == {'view_q': 224, 'view_k': 224} | {
        f'local_{i}': 96 for i in range(1, 7)
    }
    assert all(x.dtype == torch.uint8 for x in inputs.values())
    flat = [x.float().mean().item() for x in inputs.values()]
    assert len(set(flat)) == 8  # all drawn anew


def test_views_depend_on_the_address_alone(tmp_path):
    cfg = load_config('mocov3_vit-s_1xb256_cifar10-96px')
    data = ImageFolderDataset(
        folder_of(tmp_path), pipeline=cfg.train_dataloader.dataset.pipeline
    )
    first = data[SampleAddress(1, 2, 3)]['inputs']
    data[SampleAddress(0, 0, 0)]
    again = data[SampleAddress(1, 2, 3)]['inputs']
    other = data[SampleAddress(1, 3, 3)]['inputs']
    for name in ('view_1', 'view_2'):
        assert torch.equal(first[name], again[name])
        assert not torch.equal(first[name], other[name])


def test_a_recording_returns_the_original_and_the_draws(tmp_path):
    views = load_config('_base_/views/multi_crop').views.to_dict()
    data = ImageFolderDataset(
        folder_of(tmp_path),
        pipeline=[dict(type='LoadRGB'), dict(type='Views', views=views)],
    )
    plain = data[0]
    assert set(plain) == {'inputs', 'ids', 'bad'}
    data.pipeline.transforms[-1].record = True
    noted = data[0]
    assert noted['original'].shape == (40, 50, 3)
    assert list(noted['drawn']) == list(views)
    kinds = [kind for kind, _ in noted['drawn']['local_1']]
    assert kinds[0] == 'FastRandomResizedCrop' and 'FastFlip' in kinds
    for name in views:
        assert torch.equal(noted['inputs'][name], plain['inputs'][name])
