"""Which checkpoint a run goes on from, and which files it may delete."""

import os
import random

import pytest
import torch

from mmmoco.engine.checkpoint_io import (
    CheckpointError,
    any_numbered,
    find_latest,
    read,
    write,
)
from mmmoco.engine.hooks.checkpoint_hook import _own


def state(path, iteration):
    meta = dict(epoch=0, iter=iteration)
    path.parent.mkdir(parents=True, exist_ok=True)
    write(dict(state_dict={}, optimizer={}, message_hub={}, meta=meta), path)
    return path


def fifo(path):
    os.mkfifo(path)


#: What a pointer may turn into; each is a function of the pointer's path.
BROKEN = {
    'lost': lambda p: None,
    'empty': lambda p: p.write_text(''),
    'garbage': lambda p: p.write_bytes(b'\x00\xff\x13' * 20),
    'not UTF-8': lambda p: p.write_bytes(b'\xff\xfe'),
    '5,000 characters': lambda p: p.write_text('x' * 5000),
    'a long name': lambda p: p.write_text('x' * 4000),
    '10 GB': lambda p: p.open('wb').truncate(10 << 30),
    'two lines': lambda p: p.write_text('iter_1.pth\niter_2.pth'),
    'a folder': lambda p: p.mkdir(),
    'a FIFO': fifo,
    'a device': lambda p: p.symlink_to('/dev/zero'),
    'a dangling link': lambda p: p.symlink_to('/nowhere'),
    'a link to itself': lambda p: p.symlink_to(p),
    'names a folder': lambda p: p.write_text('.'),
    'names a device': lambda p: p.write_text('/dev/zero'),
    'names a FIFO': lambda p: (
        fifo(p.parent / 'pipe'),
        p.write_text(str(p.parent / 'pipe')),
    ),
    'names a foreign file': lambda p: p.write_text('/etc/passwd'),
    'names what is gone': lambda p: p.write_text('/elsewhere/iter_9.pth'),
    'URL': lambda p: p.write_text('http://127.0.0.1:9/iter_5.pth'),
    'unknown scheme': lambda p: p.write_text('weird://x'),
    'an older one': lambda p: p.write_text(str(p.parent / 'iter_1.pth')),
    'moved': lambda p: p.write_text('/elsewhere/iter_2.pth'),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize('kind', BROKEN)
def test_no_pointer_leads_astray(tmp_path, kind):
    for number in (1, 2):
        state(tmp_path / f'iter_{number}.pth', number)
    BROKEN[kind](tmp_path / 'last_checkpoint')
    assert find_latest(tmp_path) == str(tmp_path / 'iter_2.pth')
    assert any_numbered(tmp_path)


def test_the_newest_has_most_iterations(tmp_path):
    """Whatever the names, the dates and the order of writing."""
    draws = random.Random(0)
    for trial in range(20):
        folder = tmp_path / str(trial)
        pairs = [(f'epoch_{n}.pth', 4 * n) for n in draws.sample(range(9), 3)]
        pairs += [(f'iter_{n}.pth', n) for n in draws.sample(range(36), 3)]
        draws.shuffle(pairs)
        for name, iteration in pairs:
            path = state(folder / name, iteration)
            os.utime(path, (draws.random() * 1e9,) * 2)
        (folder / 'iter_99.pth').symlink_to('/nowhere')
        (folder / 'epoch_99.pth').mkdir()
        (folder / 'iter_98.pth').write_bytes(b'PK')
        most = max(iteration for _, iteration in pairs)
        found = find_latest(folder)
        assert read(found)['meta']['iter'] == most


def test_out_dir_is_searched(tmp_path):
    work_dir, out = tmp_path / 'runs' / 'a', tmp_path / 'out'
    work_dir.mkdir(parents=True)
    assert find_latest(work_dir, out) is None
    newest = state(out / 'a' / 'iter_7.pth', 7)
    state(out / 'b' / 'iter_9.pth', 9)  # of another run
    assert find_latest(work_dir, out) == str(newest)
    assert find_latest(work_dir) is None
    assert any_numbered(work_dir, out) and not any_numbered(work_dir)
    # Only where the config saves is a remote pointer followed.
    pointer = work_dir / 'last_checkpoint'
    pointer.write_text('s3://bucket/a/iter_8.pth')
    assert find_latest(work_dir, out) == str(newest)
    assert find_latest(work_dir, 's3://bucket') == 's3://bucket/a/iter_8.pth'
    with pytest.raises(CheckpointError, match='and its last_checkpoint'):
        find_latest(work_dir, 's3://buck')


@pytest.mark.parametrize('iteration', [-5, 10.5, '6', None, True])
def test_an_iteration_without_sense_is_skipped(tmp_path, iteration):
    state(tmp_path / 'iter_3.pth', iteration)
    with pytest.raises(CheckpointError, match='None of the 1'):
        find_latest(tmp_path)
    state(tmp_path / 'iter_1.pth', 1)
    assert find_latest(tmp_path).endswith('iter_1.pth')


# Names in a checkpoint that decide what is deleted

NAMES = ['thesis.txt', '/etc/passwd', '../iter_1.pth', './iter_1.pth', '']
NAMES += ['iter_1.pth/', 'iter_1.pth\n', 'iter_{}.pth', 'iter_.pth', '.', '..']
NAMES += ['a/iter_1.pth', 'iter_1.pth\0', 'iter_-1.pth', 'best_x.pth', '*']


def test_only_own_checkpoints_are_deleted(tmp_path, small_config, runner_of):
    """Every name that a hostile file may hold, absolute and relative."""
    work_dir = tmp_path / 'run'
    strange = [
        tmp_path / 'thesis.txt',
        tmp_path / 'iter_5.pth',
        tmp_path / 'best_loss_iter_5.pth',
        work_dir / 'thesis.txt',
        work_dir / 'notes' / 'iter_1.pth',
        work_dir / 'best_.txt',
    ]
    cfg = small_config(
        **{
            'default_hooks.checkpoint.by_epoch': False,
            'default_hooks.checkpoint.interval': 1,
            'default_hooks.checkpoint.max_keep_ckpts': 1,
            'default_hooks.checkpoint.save_best': 'acc',
            'default_hooks.checkpoint.rule': 'greater',
        }
    )
    runner = runner_of(cfg)
    for path in strange:
        path.parent.mkdir(exist_ok=True)
        path.write_text('precious')
    (work_dir / 'iter_8.pth').symlink_to(strange[0])
    (work_dir / 'iter_9.pth').write_text('ours, outdated')
    named = [
        *map(str, strange),
        *(os.path.relpath(path, work_dir) for path in strange),
        *NAMES,
        7,
        None,
        ['iter_9.pth'],
        'iter_8.pth',
        'iter_9.pth',
    ]
    hub = runner.message_hub
    hub.runtime_info.update(
        kept_checkpoints=named,
        best_ckpt=str(tmp_path / 'best_loss_iter_5.pth'),
        best_ckpt_x=str(strange[0]),
        best_ckpt_y=5,
        keep_ckpt_ids=['../thesis'] * 9,
    )
    hook = next(h for h in runner.hooks if hasattr(h, '_kept'))
    hook.before_train(runner)
    assert hook._kept == ['iter_9.pth'] and hook.best_ckpt_path is None
    kept = [k for k in hub.runtime_info if 'best_ckpt' in k or 'keep' in k]
    assert kept == []
    log = (next(work_dir.glob('*/*.log'))).read_text()
    assert log.count('they are left alone') == 1


@pytest.mark.parametrize(
    'names', [None, 7, 'iter_1.pth', {'iter_1.pth': 1}, b'x', torch.ones(2)]
)
def test_a_list_that_is_none_keeps_nothing(tmp_path, names):
    there, refused = _own(names, str(tmp_path), r'iter_\d+\.pth')
    assert (there, len(refused)) == ([], 1)
