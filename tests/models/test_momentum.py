import math

import pytest
import torch

from mmmoco.models.encoders import check_momentum, ema_, momentum_at

from ..comparison import Comparison, check


def test_moves_by_equation_2():
    key, query = torch.tensor([1.0, 2.0]), torch.tensor([3.0, -2.0])
    ema_([key], [query], 0.9)
    torch.testing.assert_close(key, torch.tensor([1.2, 1.6]))


def all_comparisons(steps=2000, m=0.99):
    """A key that follows a query which jumps, over a whole schedule."""
    draws = torch.Generator().manual_seed(0)
    key = torch.randn(500, generator=draws)
    expected, worst = key.double(), 0.0
    for step in range(steps):
        query = torch.randn(500, generator=draws)
        old = 1 - (1 - m) * (1 + math.cos(math.pi * (step + 1) / steps)) / 2
        expected = old * expected + (1 - old) * query.double()
        ema_([key], [query], momentum_at(m, 'cosine', (step + 1) / steps))
        worst = max(worst, float((key.double() - expected).abs().max()))
    yield Comparison(
        'moving average, its m by the half cosine',
        'the formula in double precision',
        worst,
        1e-5,
        over=f'{steps} steps',
    )


def test_a_whole_training_of_the_average():
    check(all_comparisons())


def test_openmmlab_convention_is_refused_with_both_explained():
    with pytest.raises(ValueError, match='weight of the old') as error:
        check_momentum(0.001, 'constant')
    assert '0.999' in str(error.value)
    check_momentum(0.001, 'constant', allow_any_m=True)
    with pytest.raises(ValueError, match='1.5'):
        check_momentum(1.5, 'constant', allow_any_m=True)
    with pytest.raises(ValueError, match='linear'):
        check_momentum(0.9, 'linear')


def test_half_cosine_from_m_to_one():
    assert momentum_at(0.99, 'cosine', 0.0) == pytest.approx(0.99)
    assert momentum_at(0.99, 'cosine', 1.0) == 1.0
    expected = 1 - 0.01 * (1 + math.cos(math.pi / 4)) / 2
    assert momentum_at(0.99, 'cosine', 0.25) == pytest.approx(expected)
    assert momentum_at(0.99, 'constant', 0.7) == 0.99
    assert momentum_at(0.99, 'cosine', 1.5) == 1.0
