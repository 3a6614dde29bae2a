import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import nn

from mmmoco.evaluation.linear_probe import (
    ProbeSettings,
    linear_probe,
    train_heads,
)
from mmmoco.functional import generator

from ..comparison import Comparison, check


def digits():
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x = torch.from_numpy(x[order]).float()
    y = torch.from_numpy(y[order])
    return (x[:1200], y[:1200]), (x[1200:], y[1200:])


def by_torch(x, y, classes, lr, decay, settings, loss):
    """The same training by torch's own layer, optimizer and scheduler."""
    layer = nn.Linear(x.shape[1], classes)
    draws = generator(settings.seed, 'linear probe')
    with torch.no_grad():
        start = torch.randn(x.shape[1], 1, classes, generator=draws) * 0.01
        layer.weight.copy_(start[:, 0].T)
        layer.bias.zero_()
    optimizer = torch.optim.SGD(
        [
            dict(params=[layer.weight], weight_decay=decay),
            dict(params=[layer.bias], weight_decay=0.0),
        ],
        lr=lr,
        momentum=0.9,
    )
    steps = math.ceil(len(x) / settings.batch_size)
    if settings.schedule == 'step':
        marks = [settings.epochs * steps * m // 100 for m in (60, 80)]
        scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, marks)
    else:
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(
            optimizer, settings.epochs * steps
        )
    for epoch in range(settings.epochs):
        draws = generator(settings.seed, epoch, 'order of the linear probe')
        order = torch.randperm(len(x), generator=draws)
        for part in order.split(settings.batch_size):
            optimizer.zero_grad()
            loss(layer(x[part]), y[part]).backward()
            optimizer.step()
            scheduler.step()
    return layer


def compare_columns(schedule):
    """Every column of the grid against a training by itself."""
    (x, y), _ = digits()
    x, y = x[:300] / 16, y[:300]
    settings = ProbeSettings(
        epochs=5, batch_size=60, schedule=schedule, standardise=False
    )
    grid = [(0.1, 0.0), (1.0, 1e-3), (0.02, 0.1)]
    heads = train_heads(x, y, 10, grid, settings)
    worst = 0.0
    for i, (lr, decay) in enumerate(grid):
        layer = by_torch(x, y, 10, lr, decay, settings, nn.CrossEntropyLoss())
        for ours, theirs in (
            (heads.weight[:, i].T, layer.weight.data),
            (heads.bias[i], layer.bias.data),
        ):
            worst = max(worst, float((ours - theirs).abs().max()))
    yield Comparison(
        f'linear probe, {schedule} schedule: weights',
        'torch.nn.Linear, SGD and its scheduler',
        worst,
        5e-5,
        over=f'{len(grid)} settings, {settings.epochs} epochs',
    )


@pytest.mark.parametrize('schedule', ['cosine', 'step'])
def test_every_column_equals_a_training_by_itself(schedule):
    check(compare_columns(schedule))


def test_multi_label_columns_too():
    (x, y), _ = digits()
    x = x[:200] / 16
    targets = torch.stack([y[:200] % 2, y[:200] // 5], dim=1)
    settings = ProbeSettings(epochs=4, batch_size=50, standardise=False)
    heads = train_heads(x, targets, 2, [(0.5, 1e-3)], settings)
    layer = by_torch(
        x,
        targets.float(),
        2,
        0.5,
        1e-3,
        settings,
        nn.MultiLabelSoftMarginLoss(),
    )
    torch.testing.assert_close(
        heads.weight[:, 0].T, layer.weight.data, rtol=1e-4, atol=1e-5
    )


def compare_with_logistic_regression():
    """Top-1 on held-out digits, both tuned on a part of the training."""
    train, val = digits()
    settings = ProbeSettings(
        lrs=(0.01, 0.03, 0.1), weight_decays=(0, 1e-3, 1e-2), batch_size=64
    )
    result = linear_probe(train, val, settings)
    x, y = (t.numpy() for t in train)
    mean, std = x.mean(0), x.std(0)
    std[std < 1e-6] = 1
    fit, held = slice(0, 1080), slice(1080, None)
    x = (x - mean) / std
    best = max(
        (0.01, 0.1, 1.0),
        key=lambda c: (
            LogisticRegression(C=c, max_iter=500)
            .fit(x[fit], y[fit])
            .score(x[held], y[held])
        ),
    )
    theirs = LogisticRegression(C=best, max_iter=500).fit(x, y)
    expected = 100 * theirs.score((val[0].numpy() - mean) / std, val[1])
    assert result.metrics['top1'] > 93
    assert len(result.candidates) == 9
    assert result.best.held_out == max(c.held_out for c in result.candidates)
    yield Comparison(
        'linear probe: top-1 on held-out digits',
        "scikit-learn's tuned logistic regression",
        abs(result.metrics['top1'] - expected),
        1.2,
        'points',
    )


def test_agrees_with_tuned_logistic_regression():
    check(compare_with_logistic_regression())


def all_comparisons():
    for schedule in ('cosine', 'step'):
        yield from compare_columns(schedule)
    yield from compare_with_logistic_regression()


def test_a_setting_that_diverges_leaves_the_others_alone():
    (x, y), val = digits()
    settings = ProbeSettings(
        lrs=(0.01, 0.1), weight_decays=(0.0, 1e30), epochs=3
    )
    heads = train_heads(x, y, 10, settings.grid(), settings)
    assert not torch.isfinite(heads.weight[:, 3]).all()
    alone = train_heads(x, y, 10, [(0.01, 0.0)], settings)
    torch.testing.assert_close(heads.weight[:, 0], alone.weight[:, 0])
    best = linear_probe((x, y), val, settings).best
    assert best.weight_decay == 0.0


def test_the_validation_labels_do_not_choose():
    """With shuffled labels in val the choice stays the same."""
    train, (x, y) = digits()
    settings = ProbeSettings(epochs=3)
    honest = linear_probe(train, (x, y), settings)
    fooled = linear_probe(train, (x, y.roll(7)), settings)
    assert honest.best == fooled.best
    assert fooled.metrics['top1'] < 30 < honest.metrics['top1']


def test_constant_features_do_no_harm():
    (x, y), val = digits()
    assert (x.std(0) == 0).any()  # the margins of the scans
    heads = train_heads(x, y, 10, [(0.1, 0.0)], ProbeSettings(epochs=2))
    assert torch.isfinite(heads.predict(val[0])).all()


@pytest.mark.parametrize(
    ('change', 'word'),
    [
        (dict(schedule='linear'), 'linear'),
        (dict(lrs=()), 'lrs'),
        (dict(held_out=1.0), 'held_out'),
        (dict(epochs=0), 'epochs'),
    ],
)
def test_bad_settings(change, word):
    with pytest.raises(ValueError, match=word):
        ProbeSettings(**change)
