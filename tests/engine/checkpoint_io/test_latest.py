"""The newest checkpoint that can be read is where a run goes on."""

import multiprocessing
import os
import shutil

import pytest
import torch

from mmmoco.engine.checkpoint_io import (
    CheckpointError,
    find_latest,
    read,
    require_resumable,
)

from .tiny_runs import damage_half, fork, make_runner


def test_find_latest(work_dir, tmp_path):
    assert find_latest(tmp_path) is None
    assert find_latest(work_dir) == str(work_dir / 'iter_2.pth')
    # By number, not by name or time; published and best ones are no states.
    shutil.copy(work_dir / 'iter_1.pth', work_dir / 'iter_10.pth')
    os.utime(work_dir / 'iter_10.pth', (0, 0))
    for name in ('best_acc_iter_20.pth', 'iter_30-12345678.pth', 'r50.pth'):
        torch.save({'state_dict': {}}, work_dir / name)
    (work_dir / 'r50.pth').unlink()
    assert find_latest(work_dir) == str(work_dir / 'iter_10.pth')


def test_all_unreadable_is_an_error(work_dir):
    for path in work_dir.glob('*.pth'):
        path.write_bytes(b'PK')
    with pytest.raises(CheckpointError, match='None of the 2'):
        find_latest(work_dir)


def test_weights_are_no_state_to_resume(work_dir):
    weights = {'state_dict': read(work_dir / 'iter_2.pth')['state_dict']}
    torch.save(weights, work_dir / 'iter_2.pth')
    with pytest.raises(CheckpointError, match='lacks optimizer.*load_from'):
        require_resumable(weights, work_dir / 'iter_2.pth')
    assert find_latest(work_dir) == str(work_dir / 'iter_1.pth')


def test_resume_skips_a_damaged_newest(work_dir):
    damage_half(work_dir / 'iter_2.pth')
    leftover = work_dir / '.iter_2.pth~another-host~1.tmp'
    leftover.write_bytes(b'half')
    make_runner(work_dir, max_iters=2, resume=True).train()
    losses = read(work_dir / 'iter_2.pth')['message_hub']['log_scalars']
    assert len(losses['train/loss'].data[0]) == 2
    assert not leftover.exists()


def latest_of_rank(rank, folder, store, report):
    from mmengine.runner import find_latest_checkpoint

    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{store}', rank=rank, world_size=2
    )
    for _ in range(2):
        try:
            # Rank 1 looks where there is nothing: rank 0 decides for both.
            path = find_latest_checkpoint(folder if rank == 0 else '/empty')
            report.send(path)
        except CheckpointError as error:
            report.send(str(error)[:4])
        torch.distributed.barrier()
        if rank == 0:
            for path in folder.glob('*.pth'):
                path.write_bytes(b'PK')


def test_rank_0_chooses_for_all(work_dir, tmp_path):
    pipes = [multiprocessing.Pipe(duplex=False) for _ in range(2)]
    processes = [
        fork(latest_of_rank, rank, work_dir, tmp_path / 'store', sender)
        for rank, (_, sender) in enumerate(pipes)
    ]
    for expected in (str(work_dir / 'iter_2.pth'), 'None'):
        for receiver, _ in pipes:
            assert receiver.poll(20)
            assert receiver.recv() == expected
    for process in processes:
        process.join()
