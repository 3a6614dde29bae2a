import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from mmmoco.evaluation import knn_accuracy
from mmmoco.functional import weighted_knn


def test_neighbours_equal_those_of_scikit_learn():
    draws = torch.Generator().manual_seed(0)
    bank = torch.randn(300, 16, generator=draws)
    queries = torch.randn(50, 16, generator=draws)
    labels = torch.randint(0, 7, (300,), generator=draws)
    votes, nearest = weighted_knn(bank, labels, queries, 7, k=9, chunk=16)

    unit = bank.numpy() / np.linalg.norm(bank.numpy(), axis=1, keepdims=True)
    asked = queries.numpy()
    asked = asked / np.linalg.norm(asked, axis=1, keepdims=True)
    theirs = NearestNeighbors(n_neighbors=9, algorithm='brute').fit(unit)
    distance, expected = theirs.kneighbors(asked)
    np.testing.assert_array_equal(nearest.numpy(), expected)

    # Unit vectors: similarity = 1 − distance² / 2.
    weight = np.exp((1 - distance**2 / 2) / 0.07)
    table = np.zeros((50, 7))
    for row in range(50):
        for i, w in zip(expected[row], weight[row], strict=True):
            table[row, labels[i]] += w
    np.testing.assert_array_equal(votes.argmax(1).numpy(), table.argmax(1))
    np.testing.assert_allclose(
        votes / votes.sum(1, keepdim=True),
        table / table.sum(1, keepdims=True),
        rtol=1e-3,
    )


def test_accuracy_counts_top1_and_top5():
    bank = torch.eye(6)
    labels = torch.arange(6)
    queries = torch.eye(6)[:4] + 0.1 * torch.eye(6)[[1, 2, 3, 4]]
    truth = torch.tensor([0, 1, 3, 5])  # 3 is second choice, 5 is never
    result = knn_accuracy(bank, labels, queries, truth, k=2)
    assert result.metrics['top1'] == pytest.approx(50.0)
    assert result.predictions.tolist() == [0, 1, 2, 3]
    assert result.neighbours[:, 0].tolist() == [0, 1, 2, 3]
    assert result.metrics['top5'] >= 75.0


def test_no_overflow_at_a_small_temperature():
    bank = torch.eye(4)
    votes, _ = weighted_knn(
        bank, torch.arange(4), bank, 4, k=4, temperature=1e-3
    )
    assert torch.isfinite(votes).all()
    assert votes.argmax(1).tolist() == [0, 1, 2, 3]


def test_bad_k_names_the_range():
    with pytest.raises(ValueError, match='between 1 and 4'):
        weighted_knn(torch.eye(4), torch.arange(4), torch.eye(4), 4, k=5)
    with pytest.raises(ValueError, match='labels'):
        weighted_knn(torch.eye(4), torch.arange(3), torch.eye(4), 4, k=1)
