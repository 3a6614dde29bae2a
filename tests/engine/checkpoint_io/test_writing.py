"""No interruption leaves a half-written file."""

import multiprocessing
import os
import resource
import signal
import time
from pathlib import Path

import pytest
import torch

from mmmoco.engine.checkpoint_io import (
    read,
    remove_leftovers,
    write,
    write_text,
)

from .tiny_runs import assert_same, fork, make_runner


class Unpicklable:
    def __reduce__(self):
        raise ValueError('cannot be pickled')


@pytest.fixture
def target(tmp_path):
    path = tmp_path / 'checkpoint.pth'
    write({'a': torch.ones(2)}, path)
    yield path
    assert_same(read(path), {'a': torch.ones(2)})
    assert os.listdir(tmp_path) == [path.name]


def test_unpicklable_object_leaves_the_old_file(target):
    with pytest.raises(ValueError, match='cannot be pickled'):
        write({'a': torch.zeros(2), 'b': Unpicklable()}, target)


def test_interruption_leaves_the_old_file(target):
    class Interrupt:
        def __reduce__(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write({'b': Interrupt()}, target)


def write_over_quota(path, report):
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
    for save in (
        lambda: write({'a': torch.zeros(1 << 17)}, path),
        lambda: write_text(path, 'a' * (1 << 17)),
    ):
        try:
            save()
        except OSError as error:
            report.send((error.errno, str(error)))


def test_full_disk_leaves_the_old_file(target):
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = fork(write_over_quota, target, sender)
    for _ in range(2):
        assert receiver.poll(10)
        errno, message = receiver.recv()
        assert errno == 27  # EFBIG
        assert str(target) in message and 'untouched' in message
    process.join()
    assert process.exitcode == 0


def test_no_such_place(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(OSError, match='could not be saved'):
        write({}, tmp_path / 'file/a.pth')


def test_kill_during_a_save_leaves_the_old_file(target):
    large = {'a': torch.zeros(1 << 26)}  # 256 MB
    process = fork(write, large, target)
    deadline = time.monotonic() + 20
    unfinished = []
    while time.monotonic() < deadline:
        unfinished = list(target.parent.glob('.*.tmp'))
        if unfinished and unfinished[0].stat().st_size > 1 << 20:
            break
    assert not remove_leftovers(target.parent)  # its process lives
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert_same(read(target), {'a': torch.ones(2)})
    assert remove_leftovers(target.parent) == unfinished


def test_runner_saves_through_us(tmp_path, monkeypatch):
    """Checkpoint, pointer and published file appear by renaming only."""
    renamed = []
    replace = Path.replace

    def note(self, other):
        renamed.append(Path(other).name)
        return replace(self, other)

    monkeypatch.setattr(Path, 'replace', note)
    make_runner(tmp_path, max_iters=1).train()
    published = next(tmp_path.glob('iter_1-*.pth'))
    assert renamed == ['iter_1.pth', 'last_checkpoint', published.name]
    assert set(read(published)) == {'meta', 'state_dict'}
    pointer = (tmp_path / 'last_checkpoint').read_text()
    assert pointer == str(tmp_path / 'iter_1.pth')
