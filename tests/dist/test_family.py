"""Every mechanism on two CPU processes over gloo."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from . import family
from .launching import launch

pytestmark = pytest.mark.dist


@pytest.fixture(scope='module')
def ranks(tmp_path_factory):
    """What two processes saw."""
    folder = tmp_path_factory.mktemp('family')
    launch(family.__file__, folder)
    return [torch.load(folder / f'rank{i}.pth') for i in range(2)]


@pytest.mark.parametrize('name', family.TRAININGS)
def test_two_processes_equal_one_with_the_joint_batch(ranks, name):
    """Losses, gradients, weights, keys and dictionary, after every step.

    BatchNorm is taken out (GroupNorm and LayerNorm in its place): the joint
    statistics of SyncBN need GPUs.
    """
    expected = family.train(name)
    for rank in ranks:
        for ours, theirs in zip(rank[name], expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    first, second = (rank[name][-1][2] for rank in ranks)
    for key, value in first.items():
        assert torch.equal(value, second[key]), key
    start = family.build(**family.TRAININGS[name]).state_dict()
    moved = {
        k.split('.')[0] for k in start if not torch.equal(start[k], first[k])
    }
    assert {'backbone', 'neck'} <= moved
    stored = {k.split('.')[0] for k in start if 'dictionary.' in k}
    assert {name for name in moved if 'dictionary' in name} == stored


@pytest.mark.parametrize('name', ['masked contrast', 'distillation'])
def test_losses_without_keys_equal_one_process(ranks, name):
    """MMC however many pixels are corrupted on each, and a distillation."""
    expected = getattr(family, name.replace(' ', '_'))()
    for rank in ranks:
        for ours, theirs in zip(rank[name], expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    first, second = (rank[name][-1][2] for rank in ranks)
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


def test_shuffle_bn_restores_the_order_and_mixes_the_statistics(ranks):
    """The keys equal those of one process that plays both."""
    model = family.build(norm=dict(type='BN'), dictionary=family.QUEUE)
    steps = [rank['shuffle']['steps'] for rank in ranks]
    for step, (first, second) in enumerate(zip(*steps, strict=True)):
        views, _ = family.joint_batch(step, 2 * family.SHUFFLED)
        x = (views[1].float() - 128) / 64
        both = torch.cat([first['take'], second['take']])
        assert sorted(both.tolist()) == list(range(2 * family.SHUFFLED))
        expected = torch.empty(len(x), family.C)
        for part in (first['take'], second['take']):
            origins = set((part // family.SHUFFLED).tolist())
            assert origins == {0, 1}  # Images of both are normalised together.
            # One process neither permutes nor exchanges.
            expected[part] = model.encode_key(x[part])
        for place in ('early', 'late'):
            keys = torch.cat([first[place], second[place]])
            torch.testing.assert_close(keys, expected, rtol=1e-5, atol=1e-6)
        apart = torch.cat([model.encode_key(half) for half in x.chunk(2)])
        assert (apart - expected).abs().max() > 0.01


def test_all_that_a_dense_key_is_made_of_comes_back_in_order(ranks):
    model = family.build(norm=dict(type='BN'), **family.DENSE)
    steps = [rank['shuffle']['steps'] for rank in ranks]
    for step, parts in enumerate(zip(*steps, strict=True)):
        views, _ = family.joint_batch(step, 2 * family.SHUFFLED)
        x = (views[1].float() - 128) / 64
        for i in range(4):
            keys = torch.cat([part['dense'][i] for part in parts])
            expected = torch.empty_like(keys)
            for part in parts:
                expected[part['take']] = model.encode_keys(x[part['take']])[i]
            torch.testing.assert_close(keys, expected, rtol=1e-5, atol=1e-6)


def test_images_travel_as_bytes_and_only_where_they_are_needed(ranks):
    for rank in ranks:
        shuffle = rank['shuffle']
        images = [x for x in shuffle['sent'] if len(x[1]) == 4]
        assert len(images) == 3
        for dtype, shape, (received, sent) in images:
            assert dtype == torch.uint8 and shape == (5, 3, 8, 8)
            assert sum(sent) == sum(received) == 5
        assert any(len(set(sizes[1])) > 1 for *_, sizes in images)  # uneven
        assert 4 not in shuffle['gathered']
        for step in shuffle['steps']:
            assert step['pixels_equal'] and step['query_equal']


def test_gradient_returns_through_the_exchange(ranks):
    """End-to-end with ShuffleBN, against one process that plays both."""
    model = family.build(
        norm=dict(type='BN'), dictionary=dict(type='InBatch', key_grad=True)
    )
    views, _ = family.joint_batch(0, 2 * family.SHUFFLED)
    x_q, x_k = (views.float() - 128) / 64
    q = torch.cat([model.encode_query(half) for half in x_q.chunk(2)])
    k = torch.zeros(len(x_k), family.C)
    for rank in ranks:
        take = rank['shuffle']['steps'][0]['take']
        k = k.index_copy(0, take, model.encode_query(x_k[take]))
    picked = (q @ k.T / 0.2).log_softmax(1).diagonal()
    expected = -picked.mean()
    expected.backward()
    grads = [p.grad for p in model.parameters()]
    for rank in ranks:
        loss, actual = rank['shuffled end-to-end']
        torch.testing.assert_close(
            loss, expected.detach(), rtol=1e-5, atol=1e-5
        )
        torch.testing.assert_close(actual, grads, rtol=1e-4, atol=1e-5)
