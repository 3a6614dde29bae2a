"""Linear support vector machines on frozen features, whole and low-shot."""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import average_precision_score
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import LinearSVC
from torch import Tensor

from mmmoco.functional import generator
from mmmoco.progress import track

from .classification import count_classes

#: Images a class of the low-shot figures (VOC07).
SHOTS = (1, 2, 4, 8, 16, 32, 64, 96)
COSTS = tuple(4.0**i for i in range(-6, 4))

Array = np.ndarray[Any, Any]


class SVMResult(NamedTuple):
    """Mean average precision in percent.

    Attributes:
        whole: With the whole training split.
        low_shot: For each number of images a class: mean and standard
            deviation over the draws.
    """

    whole: float
    low_shot: dict[int, tuple[float, float]]


def svm_map(
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    shots: Sequence[int] = SHOTS,
    draws: int = 5,
    costs: Sequence[float] = COSTS,
    seed: int = 0,
) -> SVMResult:
    """Train one linear SVM a class, as the VOC07 benchmark does.

    Features are L2-normalised. With the whole split, each class takes the
    cost with the best average precision in a 3-fold cross-validation. A
    low-shot draw has k images of the class and k for each other class that
    lack it; its cost is the best on the training images not drawn, and the
    test split is never looked at.

    Args:
        train: N×C features; N class indices or N×L with 1, 0 and −1 for
            present, absent and not counted.
        test: The same of other images.
        shots: Values of k; those that a class cannot fill are left out.
        draws: Draws of each k.
        costs: C of the SVM to choose from.
        seed: Of draws, folds and solver.

    Raises:
        ValueError: If no class can be evaluated.
    """
    total = count_classes(train[1], test[1])
    (x, y), (x_test, y_test) = (_arrays(*s, total) for s in (train, test))
    classes = [
        c
        for c in range(y.shape[1])
        if min(_count(y, c)) >= 3 and min(_count(y_test, c)) >= 1
    ]
    if not classes:
        raise ValueError(
            'No class has three images with and three without it in the '
            'training split, and one of each in the test split.'
        )

    def score(model: LinearSVC, c: int) -> float:
        known = y_test[:, c] >= 0
        return _precision(model, x_test[known], y_test[known, c])

    whole = []
    for c in track(classes, 'SVM of classes'):
        known = y[:, c] >= 0
        model = _cross_validated(x[known], y[known, c], costs, seed)
        whole.append(score(model, c))
    low_shot = {}
    others = max(1, y.shape[1] - 1)
    for k in shots:
        if any(min(_count(y, c)) < k for c in classes):
            continue
        figures = []
        for draw in track(range(draws), f'SVM of {k} shots'):
            precisions = []
            for c in classes:
                part = _draw(y[:, c], k, k * others, seed, draw, c)
                rest = np.setdiff1d(np.flatnonzero(y[:, c] >= 0), part)
                model = _fit_best(
                    (x[part], y[part, c]), (x[rest], y[rest, c]), costs, seed
                )
                precisions.append(score(model, c))
            figures.append(100 * float(np.mean(precisions)))
        low_shot[k] = (float(np.mean(figures)), float(np.std(figures)))
    return SVMResult(100 * float(np.mean(whole)), low_shot)


def _arrays(x: Tensor, labels: Tensor, classes: int) -> tuple[Array, Array]:
    if labels.dim() == 1:
        labels = F.one_hot(labels.cpu(), classes)
    unit = F.normalize(x.float(), dim=1).cpu()
    return unit.numpy(), labels.cpu().to(torch.int8).numpy()


def _count(y: Array, c: int) -> tuple[int, int]:
    return int((y[:, c] == 1).sum()), int((y[:, c] == 0).sum())


def _fit(x: Array, y: Array, cost: float, seed: int) -> LinearSVC:
    model = LinearSVC(
        C=cost, class_weight='balanced', random_state=seed, max_iter=2000
    )
    with warnings.catch_warnings():
        # A large cost may end at max_iter; its figure says what it is worth.
        warnings.simplefilter('ignore', ConvergenceWarning)
        return model.fit(x, y)


def _fit_best(
    fit: tuple[Array, Array],
    held: tuple[Array, Array],
    costs: Sequence[float],
    seed: int,
) -> LinearSVC:
    """Return the model of the cost that is best on ``held``."""
    models = [_fit(*fit, cost, seed) for cost in costs]
    precisions = [_precision(model, *held) for model in models]
    return models[int(np.argmax(precisions))]


def _precision(model: LinearSVC, x: Array, y: Array) -> float:
    if not y.any():
        return 0.0
    return float(average_precision_score(y, model.decision_function(x)))


def _cross_validated(
    x: Array, y: Array, costs: Sequence[float], seed: int
) -> LinearSVC:
    """Return the model of the cost that is best over three folds."""
    splitter = StratifiedKFold(3, shuffle=True, random_state=seed)
    folds = list(splitter.split(x, y))

    def total(cost: float) -> float:
        return sum(
            _precision(_fit(x[a], y[a], cost, seed), x[b], y[b])
            for a, b in folds
        )

    return _fit(x, y, max(costs, key=total), seed)


def _draw(
    y: Array, positives: int, negatives: int, seed: int, draw: int, c: int
) -> Array:
    parts = []
    for value, wanted in ((1, positives), (0, negatives)):
        there = np.flatnonzero(y == value)
        order = torch.randperm(
            len(there), generator=generator(seed, draw, c, value, 'low-shot')
        )
        parts.append(there[order[: min(wanted, len(there))].numpy()])
    return np.sort(np.concatenate(parts))
