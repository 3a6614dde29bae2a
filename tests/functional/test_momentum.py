import math

import pytest
import torch

from mmmoco.functional import check_momentum, ema_, momentum_at


def test_moves_by_equation_2():
    key, query = torch.tensor([1.0, 2.0]), torch.tensor([3.0, -2.0])
    ema_([key], [query], 0.9)
    torch.testing.assert_close(key, torch.tensor([1.2, 1.6]))


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
