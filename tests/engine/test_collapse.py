import pytest

from mmmoco.engine.collapse import CollapseWatch, Health


def health(spread=0.9, rank=40.0, loss=2.0, skipped=0):
    return Health(loss, spread, rank, full_rank=64, skipped=skipped)


def judge(watch, *measured, start=1000):
    return [watch.judge(h, start + i) for i, h in enumerate(measured)]


@pytest.mark.parametrize(
    ('bad', 'words'),
    [
        (health(spread=0.1), ['COLLAPSE', '0.100', '0.15', 'learning rate']),
        (health(rank=3.1), ['COLLAPSE', '3.1 of 64', 'below 3.2']),
    ],
)
def test_it_takes_patience_in_a_row(bad, words):
    watch = CollapseWatch(patience=3)
    assert judge(watch, bad, bad, health(), bad, bad) == [None] * 5
    (message,) = judge(watch, bad)
    assert all(word in message for word in words), message
    assert judge(watch, health()) == [None]


def test_the_first_iterations_do_not_count():
    watch = CollapseWatch(patience=1, grace=100)
    assert watch.judge(health(spread=0.0), 100) is None
    assert watch.judge(health(spread=0.0), 101)


def test_small_features_have_a_rank_of_two_at_least():
    watch = CollapseWatch(patience=1)
    narrow = Health(2.0, 0.5, rank=1.9, full_rank=16)
    assert 'below 2.0' in watch.judge(narrow, 1000)


@pytest.mark.parametrize(
    ('bad', 'word'),
    [
        (health(loss=float('nan')), 'the loss is nan'),
        (health(loss=float('inf')), 'the loss is inf'),
        (health(rank=float('nan')), 'the effective rank'),
        (health(skipped=2), '2 optimizer step'),
    ],
)
def test_what_is_not_finite_counts_at_once(bad, word):
    message = CollapseWatch().judge(bad, 1)
    assert message.startswith('NOT FINITE') and word in message


def test_healthy():
    assert judge(CollapseWatch(), *[health()] * 9, start=1) == [None] * 9
