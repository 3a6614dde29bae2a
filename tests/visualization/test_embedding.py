import numpy as np
import pytest

from mmmoco.visualization.embedding import embed


def clusters():
    draws = np.random.default_rng(0)
    centres = np.eye(8)[:3].repeat(20, axis=0)
    return centres + 0.05 * draws.normal(size=centres.shape)


@pytest.mark.parametrize('method', ['pca', 'tsne'])
def test_neighbours_stay_neighbours(method):
    flat = embed(clusters(), method)
    assert flat.shape == (60, 2)
    distance = np.linalg.norm(flat[:, None] - flat[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert (distance.argmin(1) // 20 == np.arange(60) // 20).all()
    assert np.array_equal(flat, embed(clusters(), method))


def test_length_does_not_count():
    x = clusters()
    np.testing.assert_allclose(embed(x), embed(7.0 * x), atol=1e-9)


@pytest.mark.parametrize(
    ('features', 'method', 'words'),
    [
        (np.ones((9, 3)), 'umap', 'umap.*pca, tsne'),
        (np.ones((2, 3)), 'pca', r'\(2, 3\)'),
        (np.full((9, 3), np.nan), 'pca', 'not finite'),
    ],
)
def test_what_cannot_be_mapped(features, method, words):
    with pytest.raises(ValueError, match=words):
        embed(features, method)
