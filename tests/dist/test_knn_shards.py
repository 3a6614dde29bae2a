"""k-NN over two CPU processes, each with a part of the bank."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmmoco.functional import nearest, nearest_in_shards

from . import knn_shards
from .launching import launch

pytestmark = pytest.mark.dist


@pytest.fixture(scope='module')
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp('shards')
    launch(knn_shards.__file__, folder)
    return [
        torch.load(folder / f'rank{i}.pth', weights_only=False)
        for i in range(2)
    ]


def test_merged_neighbours_equal_those_of_the_whole_bank(ranks):
    bank, queries, _, _ = knn_shards.data()
    expected = nearest(bank, queries, 20)
    for rank in ranks:
        similarity, indices = rank['search']
        torch.testing.assert_close(similarity, expected.similarity)
        assert torch.equal(indices, expected.indices)


@pytest.mark.parametrize('where', ['memory', 'mapped'])
def test_figures_and_features_equal_those_of_one_process(ranks, where):
    """101 and 23 samples: the last share of both is padded."""
    alone = knn_shards.evaluate(None)
    for rank in ranks:
        assert rank[where]['metrics'] == alone['metrics']
        for ours, theirs in zip(rank[where]['features'], alone['features']):
            assert torch.equal(ours, theirs)
    assert torch.equal(alone['features'][0], knn_shards.data()[1])


def test_k_beyond_the_whole_bank_is_refused():
    bank, queries, _, _ = knn_shards.data()
    with pytest.raises(ValueError, match='between 1 and 101'):
        nearest_in_shards(bank, torch.arange(101), queries, 102)
