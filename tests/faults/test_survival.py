"""Kills, full disks, corrupt files, dead processes, NaN: a few of each.

``benchmarks/soak.py`` plays the same scenarios more often.
"""

from itertools import pairwise

import pytest
import scenarios
import torch
from runs import Faults

from mmmoco.engine import checkpoint_io

WORKERS = {
    'optim_wrapper__accumulative_counts': 2,
    'train_dataloader__num_workers': 2,
}


@pytest.fixture
def draws():
    return scenarios.source(0)


@pytest.mark.slow
def test_killed_at_random(tmp_path, uninterrupted, draws):
    found = scenarios.kills_at_random(tmp_path, uninterrupted(), draws)
    assert found.hits >= 2 and found.differences == []
    assert max(found.lost) <= 3


@pytest.mark.slow
@pytest.mark.parametrize('where', scenarios.PLACES)
def test_killed_in_a_save(tmp_path, uninterrupted, draws, where):
    reference = uninterrupted()
    found = scenarios.kill_in_save(
        tmp_path, reference, draws, where=where, which=3
    )
    assert found.differences == []
    # Iterations 7, 8 and 9 were done, and the save is the 9th's.
    # From the rename on it is there, whatever the pointer says.
    there = where in ('after the rename', 'before the pointer moves')
    assert found.lost == [0 if there else 3]


@pytest.mark.slow
@pytest.mark.parametrize('which', [1, 2])
@pytest.mark.parametrize('where', ['no byte written', *scenarios.PLACES[-1:]])
def test_killed_in_an_early_save(tmp_path, uninterrupted, draws, where, which):
    """Every save can be hit, the first too; it is that of iteration 3."""
    reference = uninterrupted()
    found = scenarios.kill_in_save(
        tmp_path, reference, draws, where=where, which=which
    )
    assert found.differences == []
    first = next(
        a['iter']
        for a, b in pairwise(scenarios.like(reference, tmp_path).lines())
        if a['pid'] != b['pid']
    )
    assert first == 3 * which - 1


@pytest.mark.slow
@pytest.mark.parametrize('mounted', [True, False])
def test_full_disk(tmp_path, uninterrupted, draws, mounted):
    with scenarios.small_disk() as disk:
        if mounted and disk is None:
            pytest.skip('may not mount a disk here')
    found = scenarios.full_disk(
        tmp_path, uninterrupted(), draws, mounted=mounted
    )
    assert found.differences == []


@pytest.mark.slow
def test_a_disk_that_stays_full_is_an_error_at_the_end(
    tmp_path, uninterrupted
):
    """And what was saved before is still there, to go on from."""
    with scenarios.small_disk() as disk:
        if disk is None:
            pytest.skip('may not mount a disk here')
        reference, work_dir = uninterrupted(), disk / 'run'
        run = scenarios.like(reference, tmp_path, work_dir=work_dir)
        ballast = disk / 'ballast'
        run.start(faults=Faults(full=(4, 1000), ballast=ballast))
        assert run.wait() == [2]
        errors = [x for x in run.log().splitlines() if ': error: ' in x]
        assert len(errors) == 1
        assert 'The run is complete, but its last state' in errors[0]
        assert f'{work_dir}/iter_3.pth is what was saved before' in errors[0]
        assert [p.name for p in run.checkpoints()] == ['iter_3.pth']
        ballast.unlink()
        run.finish('--resume')
        assert run.differences(reference, curves=False) == []


@pytest.mark.slow
def test_a_folder_that_may_not_be_read(tmp_path, uninterrupted, draws):
    found = scenarios.unreadable_folder(tmp_path, uninterrupted(), draws)
    assert found.differences == []


@pytest.mark.slow
@pytest.mark.parametrize('damage', ['empty', 'cut off', 'a bit', 'zeros'])
def test_corrupt_newest_checkpoint(tmp_path, uninterrupted, draws, damage):
    found = scenarios.corrupt_newest(
        tmp_path, uninterrupted(), draws, damage=damage
    )
    assert found.differences == []


@pytest.mark.slow
def test_dead_worker(tmp_path, uninterrupted, draws):
    found = scenarios.dead_worker(tmp_path, uninterrupted(**WORKERS), draws)
    assert found.differences == []


@pytest.mark.slow
@pytest.mark.dist
def test_dead_rank(tmp_path, uninterrupted, draws):
    reference = uninterrupted(processes=2, train_cfg__max_epochs=6)
    found = scenarios.dead_rank(tmp_path, reference, draws)
    assert found.differences == []


@pytest.mark.slow
def test_nan_leaves_no_trace(tmp_path, uninterrupted, draws):
    """Neither in weights, keys and queue, nor in BatchNorm's statistics."""
    found = scenarios.nan_injected(tmp_path, uninterrupted(), draws)
    assert found.differences == []


@pytest.mark.slow
def test_nan_in_one_part_of_an_accumulation(tmp_path, uninterrupted):
    """The whole step is skipped, the finite part's statistics included."""
    options = {'optim_wrapper__accumulative_counts': 2}
    reference = uninterrupted(**options)
    runs = []
    for faults in (Faults(nan_at=(5,)), Faults(absent=(4, 5))):
        run = scenarios.like(reference, tmp_path / str(len(runs)))
        runs.append(run.finish(faults=faults).states())
    ours, theirs = runs
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def test_many_in_a_row_stop_the_run(tmp_path, uninterrupted):
    reference = uninterrupted()
    run = scenarios.like(reference, tmp_path)
    run.options = {'custom_hooks.5.max_in_a_row': 3}
    run.start(faults=Faults(nan_at=(1, 4, 5, 6, 7)))
    assert run.wait() == [2]
    log = run.log()
    error = next(x for x in log.splitlines() if ': error: ' in x)
    assert 'Stopped at iteration 7: 3 steps in a row' in error
    assert 'iter_7_non_finite.pth' in error and '--load-from' in error
    state = checkpoint_io.read(run.work_dir / 'iter_7_non_finite.pth')
    assert state['optimizer']['skipped_in_a_row'] == 3
    assert state['optimizer']['skipped_steps'] == 4
    # The state is that after the last good step, the fourth.
    good = scenarios.like(reference, tmp_path / 'good')
    good.start(faults=Faults(absent=(1,), signal_at=(3, 'SIGTERM')))
    assert good.wait() == [0]
    expected = checkpoint_io.read(good.work_dir / 'iter_4.pth')
    for name, value in expected['state_dict'].items():
        assert torch.equal(state['state_dict'][name], value), name


# Another number of processes


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.parametrize(('before', 'after'), [(2, 1), (1, 2)])
def test_other_processes_go_on_in_the_same_place(
    tmp_path, uninterrupted, before, after
):
    first = uninterrupted(processes=before, train_cfg__max_epochs=6)
    run = scenarios.like(first, tmp_path, processes=before)
    # Two images of three of the second epoch, and of 64 in it, are done.
    length = 4 // before
    run.start(faults=Faults(signal_at=(length + length // 2 - 1, 'SIGTERM')))
    assert run.wait() == [0] * before
    used = [
        i for it, (ids, _) in run.seen().items() if it >= length for i in ids
    ]
    if before == 2:
        used += [
            i
            for it, (ids, _) in run.seen(1).items()
            if it >= length
            for i in ids
        ]
    assert len(used) == 32
    (tmp_path / 'next').mkdir()
    resumed = scenarios.like(
        first, tmp_path / 'next', processes=after, work_dir=run.work_dir
    ).finish()
    log = ' '.join(resumed.log().split())
    assert f'of {before} process(es) x batch 16 x accumulation 1' in log
    assert f'this run has {after} process(es) x batch 16' in log
    assert f'Effective batch: {16 * before} before, {16 * after} now' in log
    assert 'Learning rate: stays' in log
    assert 'the run is not the one it would have been' in log
    length = 4 // after
    steps = resumed.seen()
    assert min(steps) == length + length // 2 and max(steps) == 6 * length - 1
    # The rest of the epoch holds the other images, each once.
    rest = [
        i
        for rank in range(after)
        for it, (ids, _) in resumed.seen(rank).items()
        if it < 2 * length
        for i in ids
    ]
    assert sorted(used + rest) == list(range(64))
    # The schedule has its end where the run has it.
    rate = float(resumed.states()['lr.0'])
    assert rate == pytest.approx(float(first.states()['lr.0']), rel=0.05)
