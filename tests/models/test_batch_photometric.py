"""Draws of the batch operations, and what they change.

Their exactness stands in tests/datasets/transforms/test_exactness.py.
"""

import pytest
import torch

from mmmoco.models.preprocessors import (
    BatchColorJitter,
    BatchDiscreteRotation,
    BatchFlip,
    BatchGaussianBlur,
    BatchGaussianNoise,
    BatchGrayscale,
    BatchSolarize,
    ViewAugmentor,
)
from mmmoco.registry import BATCH_AUGMENTS

V3 = [
    dict(
        type='BatchColorJitter',
        brightness=0.4,
        contrast=0.4,
        saturation=0.2,
        hue=0.1,
        prob=0.8,
    ),
    dict(type='BatchGrayscale', prob=0.2),
    dict(type='BatchGaussianBlur', prob=0.5),
    dict(type='BatchSolarize', prob=0.2),
    dict(type='BatchFlip', horizontal=0.5, vertical=0.5),
    dict(type='BatchDiscreteRotation'),
    dict(type='BatchGaussianNoise', std=5.0, prob=0.5),
]


def images(n=16, side=12):
    draws = torch.Generator().manual_seed(0)
    return torch.rand(n, 3, side, side, generator=draws) * 255


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def test_factors_and_orders():
    jitter = BatchColorJitter(0.4, 0.3, 0.2, 0.1, prob=0.8)
    drawn = jitter.draw(4000, draws())
    centre = torch.tensor([1.0, 1.0, 1.0, 0.0])
    width = torch.tensor([0.4, 0.3, 0.2, 0.1])
    spread = (drawn['factors'] - centre) / width
    assert spread.abs().max() <= 1
    assert spread.mean(0).abs().max() < 0.04
    assert (spread.var(0) - 1 / 3).abs().max() < 0.02  # uniform
    assert abs(drawn['acts'].float().mean() - 0.8) < 0.03
    orders, counts = drawn['order'].unique(dim=0, return_counts=True)
    assert len(orders) == 24 and counts.min() > 100
    assert (orders.sort(1).values == torch.arange(4)).all()


def test_the_order_matters_sample_by_sample():
    x = images(2)
    jitter = BatchColorJitter(0.4, 0.4, 0.4, 0.1)
    factors = torch.tensor([[1.4, 0.6, 1.4, 0.1]] * 2)
    orders = torch.tensor([[0, 1, 2, 3], [3, 1, 0, 2]])
    acts = torch.tensor([True, True])
    both = jitter.apply(x, acts=acts, factors=factors, order=orders)
    for i in range(2):
        one = slice(i, i + 1)
        alone = jitter.apply(
            x[one],
            acts=acts[one],
            factors=factors[one],
            order=orders[one],
        )
        torch.testing.assert_close(both[one], alone)
    swapped = jitter.apply(x, acts=acts, factors=factors, order=orders.flip(0))
    assert (swapped - both).abs().mean() > 1


@pytest.mark.parametrize(
    'op, prob',
    [
        (BatchColorJitter(0.4, prob=0.8), 0.8),
        (BatchGrayscale(0.2), 0.2),
        (BatchGaussianBlur((1.0, 2.0), prob=0.5), 0.5),
        (BatchSolarize(prob=0.1), 0.1),
        (BatchFlip(0.5), 0.5),
        (BatchFlip(0.0, 0.3), 0.3),
        (BatchDiscreteRotation(prob=0.8), 0.6),  # a quarter turns by 0
        (BatchGaussianNoise(2.0, prob=0.4), 0.4),
    ],
)
def test_operations_act_as_often_as_they_say(op, prob):
    x = images(1500, 6)
    before = x.clone()
    y = op(x, draws())
    assert torch.equal(x, before)  # never in place
    assert y.shape == x.shape and y.dtype == torch.float32
    acted = (y != x).flatten(1).any(1).float().mean()
    assert abs(acted - prob) < 0.05


def test_rotation_permutes_the_pixels():
    x = images(1)
    quarters = BatchDiscreteRotation()
    for turns in range(4):
        y = quarters.apply(x, turns=torch.tensor([turns]))
        torch.testing.assert_close(y, torch.rot90(x, turns, (2, 3)))
    wide = torch.zeros(2, 3, 4, 6)
    half = BatchDiscreteRotation(angles=(0, 180))
    assert half(wide, draws()).shape == wide.shape
    with pytest.raises(ValueError, match='4×6'):
        quarters.apply(wide, turns=torch.tensor([0, 1]))
    with pytest.raises(ValueError, match='45'):
        BatchDiscreteRotation(angles=(45,))


def test_noise_has_the_deviation_of_each_band():
    std = torch.arange(1.0, 14.0)
    op = BatchGaussianNoise(std.tolist(), prob=1.0)
    x = torch.zeros(4, 13, 40, 40)
    drawn = op.draw(4, draws())
    y = op.apply(x, **drawn)
    found = y.transpose(0, 1).flatten(1).std(1)
    torch.testing.assert_close(found, std, rtol=0.03, atol=0)
    assert y.mean().abs() < 0.1
    assert torch.equal(y, op.apply(x, **drawn))


def test_views_of_a_seed_are_reproduced():
    made = ViewAugmentor(
        mean=(0, 0, 0),
        std=(1, 1, 1),
        views=dict(view_1=dict(source='view_1', ops=V3)),
    )
    batch = {'inputs': {'view_1': images().byte()}, 'ids': torch.arange(16)}

    def at(step):
        made.set_address(seed=3, step=step, rank=0)
        return made(dict(batch), True)['inputs']['view_1']

    first, other, again = at(1), at(2), at(1)
    assert torch.equal(first, again) and not torch.equal(first, other)
    made.drawn = {}
    assert torch.equal(at(1), first)
    kinds = [kind for kind, _ in made.drawn['view_1']]
    assert kinds == [op['type'] for op in V3]


@pytest.mark.gpu
def test_a_gpu_makes_the_views_of_a_cpu():
    ops = [BATCH_AUGMENTS.build(op) for op in V3 if 'Noise' not in op['type']]
    x = images(64, 32)
    y = x.cuda()
    one, other = draws(), draws()
    for op in ops:
        x, y = op(x, one), op(y, other)
        torch.testing.assert_close(y.cpu(), x, rtol=0, atol=0.05)


def test_mistakes_are_named():
    for make, text in (
        (lambda: BatchColorJitter(hue=0.7), 'hue'),
        (lambda: BatchColorJitter(brightness=-0.1), 'brightness'),
        (lambda: BatchGrayscale(2.0), 'prob=2.0'),
        (lambda: BatchGaussianBlur((2.0, 1.0)), 'sigma'),
        (lambda: BatchFlip(1.5), 'horizontal'),
        (lambda: BatchGaussianNoise(-1.0), 'std=-1.0'),
    ):
        with pytest.raises(ValueError, match=text):
            make()
    with pytest.raises(ValueError, match='RGB.*4 channels'):
        BatchGrayscale(1.0)(torch.zeros(1, 4, 2, 2), draws())
