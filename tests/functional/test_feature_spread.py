import math

import numpy as np
import pytest
import torch

from mmmoco.functional import effective_rank, feature_spread


def test_spread_is_one_on_the_sphere_and_zero_when_collapsed():
    draws = torch.Generator().manual_seed(0)
    even = torch.randn(4096, 32, generator=draws)
    assert feature_spread(even) == pytest.approx(1.0, abs=0.01)
    assert feature_spread(3.0 * even) == feature_spread(even)
    assert feature_spread(torch.ones(8, 32)) == pytest.approx(0.0, abs=1e-6)


def test_spread_follows_the_mean_similarity():
    """Of vectors on the sphere: spread squared = 1 - |mean|^2."""
    draws = torch.Generator().manual_seed(1)
    x = torch.randn(64, 16, generator=draws) + 1.0
    q = torch.nn.functional.normalize(x, dim=1)
    variance = q.var(0, unbiased=False).sum()
    torch.testing.assert_close(variance, 1 - q.mean(0).square().sum())
    assert feature_spread(x) ** 2 <= float(variance) + 1e-6


def test_effective_rank_is_the_exponential_of_the_entropy():
    draws = np.random.default_rng(0)
    x = draws.normal(size=(40, 12)) * np.linspace(0.01, 1, 12)
    q = x / np.linalg.norm(x, axis=1, keepdims=True)
    # The definition, by eigenvalues instead of singular values.
    values = np.sqrt(np.linalg.eigvalsh(q.T @ q))
    p = values / values.sum()
    expected = math.exp(-(p * np.log(p)).sum())
    found = effective_rank(torch.tensor(x, dtype=torch.float32))
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ('features', 'rank'),
    [
        (torch.eye(8), 8.0),
        (torch.ones(8, 16), 1.0),
        (torch.eye(8)[torch.arange(8) % 2], 2.0),
    ],
)
def test_effective_rank_counts_the_directions(features, rank):
    assert effective_rank(features) == pytest.approx(rank, rel=1e-3)


def test_effective_rank_of_what_is_not_finite():
    assert math.isnan(effective_rank(torch.full((4, 4), float('nan'))))
