import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from sklearn.svm import LinearSVC

from mmmoco.evaluation.svm import svm_map


def clouds(n, seed, noise=0.6):
    """Three classes, of which an image may have several."""
    draws = torch.Generator().manual_seed(seed)
    labels = (torch.rand(n, 3, generator=draws) < 0.4).long()
    x = labels.float() @ torch.eye(3, 8)
    return x + noise * torch.randn(n, 8, generator=draws), labels


def test_more_images_give_a_better_classifier():
    train, test = clouds(300, 0), clouds(200, 1)
    result = svm_map(train, test, shots=(1, 16), draws=3, costs=(0.1, 1.0))
    assert set(result.low_shot) == {1, 16}
    (one, spread), (many, _) = result.low_shot[1], result.low_shot[16]
    assert one < many < result.whole + 1
    assert spread > 0
    prior = 100 * test[1].float().mean().item()
    assert prior < one
    again = svm_map(train, test, shots=(1, 16), draws=3, costs=(0.1, 1.0))
    assert again == result


def test_whole_equals_scikit_learn_by_hand():
    (x, y), (x_test, y_test) = clouds(200, 0), clouds(100, 1)
    result = svm_map((x, y), (x_test, y_test), shots=(), costs=(0.5,))

    def unit(t):
        t = t.numpy()
        return t / np.linalg.norm(t, axis=1, keepdims=True)

    precisions = []
    for c in range(3):
        model = LinearSVC(C=0.5, class_weight='balanced', random_state=0)
        scores = model.fit(unit(x), y[:, c]).decision_function(unit(x_test))
        precisions.append(average_precision_score(y_test[:, c], scores))
    assert result.whole == pytest.approx(100 * np.mean(precisions), abs=0.05)


def test_difficult_images_are_left_out():
    (x, y), test = clouds(200, 0), clouds(100, 1)
    garbage = torch.randn(50, 8) * 10
    marked = torch.cat([y, -torch.ones(50, 3, dtype=torch.long)])
    with_garbage = (torch.cat([x, garbage]), marked)
    plain = svm_map((x, y), test, shots=(), costs=(0.5,))
    same = svm_map(with_garbage, test, shots=(), costs=(0.5,))
    assert same.whole == pytest.approx(plain.whole, abs=1e-6)


def test_class_indices_and_shots_that_cannot_be_filled():
    x, _ = clouds(60, 0)
    y = torch.arange(60) % 3
    x = x + 2 * torch.eye(3, 8)[y]
    result = svm_map((x, y), (x, y), shots=(4, 50), draws=2, costs=(1.0,))
    assert set(result.low_shot) == {4}
    with pytest.raises(ValueError, match='No class'):
        svm_map((x, torch.zeros(60, dtype=torch.long)), (x, y))
