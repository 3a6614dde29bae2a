import logging

import pytest
from torch import nn

from mmmoco import messages
from mmmoco.models.algorithms import batch_norm_guard
from mmmoco.models.norms import SplitBN


@pytest.fixture
def log(monkeypatch):
    lines = []
    monkeypatch.setattr(
        messages,
        'print_log',
        lambda text, _, level=logging.INFO: lines.append((level, text)),
    )
    return lines


BN, SYNC, NONE = nn.BatchNorm2d(4), nn.SyncBatchNorm(4), nn.GroupNorm(2, 4)
SPLIT = SplitBN(4, num_splits=2)
QUIET, LOUD = logging.INFO, logging.WARNING


@pytest.mark.parametrize(
    ('norm', 'world', 'shuffles', 'level', 'words'),
    [
        (BN, 1, False, LOUD, 'by the statistics of its batch.*SplitBN'),
        (BN, 4, True, QUIET, 'ShuffleBN over 4 processes'),
        (SPLIT, 1, True, QUIET, 'SplitBN in 2 parts, permuted'),
        (SPLIT, 2, True, QUIET, 'ShuffleBN over 2'),
        (SYNC, 4, False, LOUD, 'SyncBN.*nothing to permute'),
        (NONE, 4, False, QUIET, 'none needed'),
    ],
)
def test_v1_and_v2(log, norm, world, shuffles, level, words):
    chosen = batch_norm_guard.choose_shuffle_bn(
        'MoCo', [nn.Sequential(norm)], world, True, stored_negatives=True
    )
    ((actual, text),) = log
    assert (chosen, actual) == (shuffles, level)
    assert matches(words, text)


@pytest.mark.parametrize(
    ('norm', 'world', 'queue', 'level', 'words'),
    [
        (BN, 1, False, QUIET, 'as MMC has it'),
        (SYNC, 4, False, QUIET, 'as MMC has it'),
        (BN, 4, False, LOUD, 'incomplete.*4 processes.*SyncBN'),
        (SPLIT, 1, False, LOUD, 'share their part'),
        (SYNC, 4, True, LOUD, 'queue were normalised with other batches'),
        (NONE, 4, True, QUIET, 'none needed'),
    ],
)
def test_v3_and_mmc_permute_nothing(log, norm, world, queue, level, words):
    chosen = batch_norm_guard.choose_shuffle_bn(
        'MMC', [norm], world, False, stored_negatives=queue
    )
    ((actual, text),) = log
    assert (chosen, actual) == (False, level)
    assert 'MoCo v3' not in text and ('MMC' in text or norm is NONE)
    assert matches(words, text)


def matches(words, text):
    position = 0
    for part in words.split('.*'):
        position = text.find(part, position)
        if position < 0:
            return False
    return True
