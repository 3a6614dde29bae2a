"""Two CPU processes over gloo, started as users start them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmmoco.engine import checkpoint_io

from .launching import ROOT, launch

pytestmark = pytest.mark.dist


TRAIN_AND_DUMP = """
import sys
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmmoco.apis import cli
from mmmoco.apis.training.jobs import train
from mmmoco.apis.training.runner import build_runner, init_processes
from mmmoco.apis.training.train import prepare
from mmmoco.engine.bare_model import bare_model

out, *argv = sys.argv[1:]
args, _ = cli.arguments(train, argv)
cfg = prepare(**args)
init_processes(cfg, 'pytorch')
ids = []

class Note(Hook):
    def after_train_iter(self, runner, batch_idx, data_batch, outputs):
        ids.extend(data_batch['ids'].tolist())

runner = build_runner(cfg)
runner.register_hook(Note())
runner.train()
torch.save(ids, f'{out}/ids{get_rank()}.pth')
torch.save(bare_model(runner).state_dict(), f'{out}/rank{get_rank()}.pth')
"""


@pytest.fixture(scope='module')
def states(tmp_path_factory):
    """Eight iterations of the demo on two processes, accumulation 2."""
    folder = tmp_path_factory.mktemp('two')
    script = folder / 'train.py'
    script.write_text(TRAIN_AND_DUMP)
    output = launch(
        script,
        folder,
        'demo/mocov2_digits',
        '--work-dir',
        folder / 'run',
        '--max-iters',
        8,
        '--cfg-options',
        'train_dataloader.batch_size=32',
        'train_dataloader.dataset.num_scenes=512',
        'knn.bank.dataset.num_scenes=41',
        'knn.query.dataset.num_scenes=21',
        'optim_wrapper.accumulative_counts=2',
    )
    ranks = [torch.load(folder / f'rank{i}.pth') for i in range(2)]
    return ranks, output, folder


def test_queue_and_key_encoder_are_identical_on_both(states):
    (first, second), _, _ = states
    compared = 0
    for name, value in first.items():
        buffers = 'running_' in name or 'num_batches' in name
        if buffers:
            continue  # BatchNorm statistics are each process's own.
        assert torch.equal(value, second[name]), name
        compared += name.startswith(('dictionary.', 'key_encoder.'))
    assert compared > 10
    assert int(first['dictionary.ptr']) == 8 * 2 * 32


def test_the_guard_against_the_leak_is_shuffle_bn(states):
    _, output, _ = states
    assert 'ShuffleBN over 2 processes' in output
    assert 'Effective batch 128 = 32 per process x 2 processes x 2' in output


def test_knn_covers_every_sample_once(states):
    _, output, _ = states
    assert '41 in the bank, 21 queries' in output


def test_both_processes_learned_from_different_samples(states):
    *_, folder = states
    first, second = (set(torch.load(folder / f'ids{i}.pth')) for i in (0, 1))
    assert len(first) == len(second) == 8 * 32
    assert not first & second


SHUFFLE = """
import torch
import torch.distributed as dist
from mmmoco.functional import gather, shuffle_plan, unshuffle
from mmmoco.functional import gather_with_grad

dist.init_process_group('gloo')
rank = dist.get_rank()
x = torch.arange(6.0).view(6, 1) + 100 * rank
plan = shuffle_plan(6, seed=1, step=2, device=x.device)
mine = gather(x)[plan.take]
# The order comes back,
assert torch.equal(unshuffle(mine, plan), x)
# and what is encoded together really is mixed:
origin = (mine >= 100).float().mean()
assert 0 < origin < 1, origin
other = shuffle_plan(6, seed=1, step=3, device=x.device)
assert not torch.equal(plan.take, other.take)
# Gathered keys stand in rank order, and a gradient returns to its owner,
# summed over the losses of both.
assert torch.equal(gather(x)[:6] + 100 * rank, x)
leaf = x.clone().requires_grad_()
both = gather_with_grad(leaf)
(both * (rank + 1)).sum().backward()
assert torch.equal(leaf.grad, torch.full_like(x, 3.0)), leaf.grad
dist.barrier()
dist.destroy_process_group()
"""


def test_shuffle_restores_the_order_and_mixes(tmp_path):
    script = tmp_path / 'shuffle.py'
    script.write_text(SHUFFLE)
    launch(script)


def test_dist_train_script_runs_the_demo(tmp_path):
    done = subprocess.run(
        [
            'bash',
            str(ROOT / 'tools' / 'dist_train.sh'),
            'configs/demo/mocov2_digits.py',
            '2',
            '--work-dir',
            str(tmp_path / 'run'),
            '--max-iters',
            '3',
            '--cfg-options',
            'train_dataloader.dataset.num_scenes=256',
            'train_dataloader.batch_size=32',
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    checkpoint = tmp_path / 'run' / 'iter_3.pth'
    state = checkpoint_io.read(str(checkpoint))['state_dict']
    assert int(state['dictionary.ptr']) == 3 * 2 * 32

    done = subprocess.run(
        [
            'bash',
            str(ROOT / 'tools' / 'dist_test.sh'),
            'configs/demo/mocov2_digits.py',
            str(checkpoint),
            '2',
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.count('top-1') + done.stderr.count('top-1') == 1


def test_bad_input_ends_all_processes_at_once(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            '-m',
            'torch.distributed.run',
            '--standalone',
            '--nproc_per_node=2',
            str(ROOT / 'tools' / 'train.py'),
            'nowhere.py',
            '--launcher',
            'pytorch',
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0
    assert "There is no config 'nowhere.py'" in done.stderr
