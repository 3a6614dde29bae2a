"""Rectangles, budgets and what stands in them."""

import pytest
import torch

from mmmoco.functional import generator
from mmmoco.models.preprocessors import BlockCorruption, MaskedViewAugmentor
from mmmoco.models.preprocessors import corruption as corruption_module
from mmmoco.registry import MODELS

SIDE = 32


def images(n=64):
    """Every image has one value of its own, far from the noise."""
    values = 100.0 + torch.arange(n, dtype=torch.float32)
    return values.view(n, 1, 1, 1).expand(n, 3, SIDE, SIDE).clone()


def corrupt(x, step=0, **options):
    return BlockCorruption(**options)(x, generator(0, step, 'test'))


def pixels_of(x, corrupted):
    """Masks of noise and of other images, from the pixels themselves."""
    changed = (corrupted.images != x).any(1)
    noise = (corrupted.images < 50).any(1)
    return noise, changed & ~noise


@pytest.mark.parametrize('mode', ['either', 'both'])
def test_the_mask_is_exact(mode):
    x = images()
    corrupted = corrupt(x, mode=mode)
    changed = (corrupted.images != x).any(1, keepdim=True)
    assert torch.equal(corrupted.mask, changed)
    assert corrupted.mask.dtype == torch.bool


def test_amounts():
    """Noise over 50 to 75 %, or 30 % of another image; half the images."""
    x = images(400)
    corrupted = corrupt(x)
    noise, alien = pixels_of(x, corrupted)
    noise, alien = (m.float().mean((1, 2)) for m in (noise, alien))
    is_alien = alien > 0
    assert not (is_alien & (noise > 0)).any()  # never both
    assert 160 < is_alien.sum() < 240  # p = 0.5, four deviations
    # The last rectangle, at most 9 × 9 of 32 × 32 pixels, exceeds.
    largest = 81 / SIDE**2
    share = alien[is_alien]
    assert share.min() >= 0.3 and share.max() < 0.3 + largest
    share = noise[~is_alien]
    assert share.min() >= 0.5 and share.max() < 0.75 + largest
    # Uniform between 0.5 and 0.75, and half a rectangle more.
    assert 0.61 < share.mean() < 0.68
    assert share.std() == pytest.approx(0.25 / 12**0.5, abs=0.015)


def test_both():
    x = images(200)
    noise, alien = pixels_of(x, corrupt(x, mode='both'))
    noise, alien = (m.float().mean((1, 2)) for m in (noise, alien))
    assert (noise >= 0.5).all()
    # 30 %, of which the noise covered about 62 %.
    assert 0.08 < alien.mean() < 0.16


def test_a_budget_takes_no_rectangle_too_many():
    """Without the last one it would not be met."""
    x = images(16)
    full = BlockCorruption(noise=(0.6, 0.6), alien_prob=0.0)
    draws = generator(0, 0, 'spans')
    rows, columns = (
        full._covered(full._spans(16, SIDE, draws), SIDE) for _ in 'xy'
    )
    draws = generator(0, 0, 'spans')
    mask = full._blocks(torch.full((16,), 0.6), images(16), draws)
    for n in range(len(x)):
        union = torch.zeros(SIDE, SIDE, dtype=torch.bool)
        for r, c in zip(rows[n], columns[n], strict=True):
            before = union.float().mean()
            if before >= 0.6:
                break
            union |= (r[:, None] * c[None]) > 0
        assert torch.equal(mask[n, 0], union)


def test_every_place_is_covered_equally_often():
    x = images(1500)[:, :1]
    mask = corrupt(x, noise=(0.3, 0.3), alien_prob=0.0, max_blocks=64).mask
    often = mask.float().mean((0, 1))
    inside = often[8:-8, 8:-8].mean()
    corners = torch.stack(
        [often[:3, :3], often[-3:, :3], often[:3, -3:], often[-3:, -3:]]
    )
    assert abs(corners.mean() - inside) < 0.04


def test_whole_patches():
    x = images(32)
    mask = corrupt(x, align=8, max_side=0.5).mask.float()
    fraction = torch.nn.functional.avg_pool2d(mask, 8)
    assert ((fraction == 0) | (fraction == 1)).all()
    assert 0 < fraction.mean() < 1
    with pytest.raises(ValueError, match='align=5'):
        corrupt(x, align=5)


def test_the_other_image_is_another_and_at_the_same_place():
    n = 16
    x = images(n) * 1000 + torch.arange(SIDE * SIDE).view(SIDE, SIDE)
    for step in range(5):
        corrupted = corrupt(x, step, alien_prob=1.0)
        for i in range(n):
            where = corrupted.mask[i, 0]
            values = corrupted.images[i, 0][where]
            (source,) = [
                j for j in range(n) if torch.equal(x[j, 0][where], values)
            ]
            assert source != i


def test_noise_is_standard_normal_and_zeros_are_zeros():
    x = images()
    corrupted = corrupt(x, alien_prob=0.0)
    values = corrupted.images[corrupted.mask.expand_as(x)]
    assert abs(values.mean()) < 0.01 and abs(values.std() - 1) < 0.01
    corrupted = corrupt(x, alien_prob=0.0, fill='zeros')
    assert not corrupted.images[corrupted.mask.expand_as(x)].any()


def test_a_single_image_gets_noise():
    x = images(1)
    for mode in ('either', 'both'):
        corrupted = corrupt(x, alien_prob=1.0, mode=mode)
        noise, alien = pixels_of(x, corrupted)
        assert noise.any() and not alien.any()


def test_the_address_decides():
    def preprocess(seed, step, rank):
        augmentor = MODELS.build(
            dict(
                type='MaskedViewAugmentor',
                mean=(0.0,),
                std=(1.0,),
                corruption=dict(type='BlockCorruption'),
            )
        )
        assert isinstance(augmentor, MaskedViewAugmentor)
        augmentor.set_address(seed, step, rank)
        image = torch.zeros(4, 1, SIDE, SIDE, dtype=torch.uint8)
        data = {'inputs': {'view_1': image, 'view_2': image}}
        return augmentor(data, True)['inputs']

    first, again = preprocess(0, 3, 1), preprocess(0, 3, 1)
    assert list(first) == [
        'view_1',
        'view_2',
        'view_1_corrupted',
        'view_1_mask',
        'view_2_corrupted',
        'view_2_mask',
    ]
    for name, value in first.items():
        assert torch.equal(value, again[name])
    assert not torch.equal(first['view_1_mask'], first['view_2_mask'])
    for other in ((1, 3, 1), (0, 4, 1), (0, 3, 0)):
        assert not torch.equal(
            preprocess(*other)['view_1_mask'], first['view_1_mask']
        )


def test_nothing_is_corrupted_outside_training():
    augmentor = MaskedViewAugmentor(
        corruption=dict(type='BlockCorruption'), mean=(0.0,), std=(1.0,)
    )
    image = torch.zeros(2, 1, SIDE, SIDE, dtype=torch.uint8)
    assert list(augmentor({'inputs': {'image': image}})['inputs']) == ['image']
    with pytest.raises(KeyError, match='corrupted_views'):
        augmentor({'inputs': {'image': image}}, True)


@pytest.mark.parametrize(
    'options',
    [
        dict(noise=(0.8, 0.5)),
        dict(noise=(0.5, 1.0)),
        dict(alien=-0.1),
        dict(mode='xor'),
        dict(fill='grey'),
        dict(alien_prob=2.0),
        dict(align=0),
    ],
)
def test_what_cannot_be_is_refused(options):
    with pytest.raises(ValueError):
        BlockCorruption(**options)


@pytest.mark.parametrize('mode', ['either', 'both'])
def test_a_device_gets_the_rectangles_of_the_host(mode, monkeypatch):
    """With a device that draws other noise, here one that draws none."""
    x = images(32)
    draws = {}

    def here(device, source):
        draws['on'] = device
        return generator(9, 9)

    expected = corrupt(x, mode=mode)
    monkeypatch.setattr(corruption_module, 'generator_on', here)
    found = corrupt(x, mode=mode)
    assert draws['on'] == x.device
    assert torch.equal(found.mask, expected.mask)
    noise, alien = pixels_of(x, found)
    assert torch.equal(noise, pixels_of(x, expected)[0])
    differs = (found.images != expected.images).any(1)
    assert torch.equal(differs, noise) and noise.any()
