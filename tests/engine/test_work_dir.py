"""A work dir belongs to one run at a time, and to one run in all."""

import os
import signal
import time

import pytest

from mmmoco.apis import train
from mmmoco.engine import work_dir as module
from mmmoco.engine.work_dir import WorkDirError, claimed


def in_child(function):
    """Fork; return the child's id once it wrote a byte."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            function(lambda: os.write(write, b'x'))
        finally:
            os._exit(0)
    os.close(write)
    answer = os.read(read, 1)
    os.close(read)
    return pid, answer


def hold(folder):
    def child(ready):
        module._held.clear()  # that of the parent
        with claimed(str(folder)):
            worker = os.fork()
            if worker == 0:
                time.sleep(60)
                os._exit(0)
            (folder / 'worker').write_text(str(worker))
            ready()
            time.sleep(60)

    return child


def test_a_second_run_is_refused_until_the_first_died(tmp_path):
    """Also kill -9, and although its data worker lives on."""
    pid, answer = in_child(hold(tmp_path))
    assert answer == b'x'
    worker = int((tmp_path / 'worker').read_text())
    try:
        with pytest.raises(WorkDirError, match=f'pid {pid}, since'):
            claimed(str(tmp_path)).__enter__()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.kill(worker, 0)  # is alive
        with claimed(str(tmp_path)):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)


def test_within_a_process_and_through_a_link(tmp_path):
    (tmp_path / 'a').mkdir()
    (tmp_path / 'link').symlink_to('a')
    with claimed(str(tmp_path / 'a')):
        for name in ('a', 'link', 'a/../a'):
            with pytest.raises(WorkDirError, match='in this process'):
                claimed(str(tmp_path / name)).__enter__()
        with claimed(str(tmp_path / 'b')):
            pass
    with claimed(str(tmp_path / 'link')):
        pass


def test_an_error_frees_it(tmp_path):
    with pytest.raises(KeyError), claimed(str(tmp_path)):
        raise KeyError
    with claimed(str(tmp_path)):
        pass


@pytest.mark.parametrize('number', module._NO_LOCKS)
def test_a_file_system_without_locks_is_a_warning(
    tmp_path, monkeypatch, number, caplog
):
    def none(*_):
        raise OSError(number, 'no locks')

    monkeypatch.setattr(module.fcntl, 'lockf', none)
    said = []
    monkeypatch.setattr(module, 'print_log', lambda *a: said.append(a[0]))
    with claimed(str(tmp_path)):
        pass
    assert len(said) == 1 and 'has no locks' in said[0]


@pytest.mark.parametrize('kind', ['a link', 'a FIFO', 'a folder'])
def test_a_lock_that_is_no_file(tmp_path, kind):
    path = tmp_path / '.lock'
    victim = tmp_path / 'thesis.txt'
    victim.write_text('precious')
    if kind == 'a link':
        path.symlink_to(victim)
    elif kind == 'a FIFO':
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(WorkDirError):
        claimed(str(tmp_path)).__enter__()
    assert victim.read_text() == 'precious'


USED = {
    'epoch_3.pth': True,
    'iter_12.pth': True,
    'last_checkpoint': True,
    'notes.txt': False,
    'best_acc_epoch_3.pth': False,
    'iter_7_non_finite.pth': False,
    'r50-12345678.pth': False,
    'results.jsonl': False,
}


@pytest.mark.parametrize('name', USED)
@pytest.mark.parametrize('elsewhere', [False, True])
def test_used_or_not(tmp_path, name, elsewhere):
    run, out = tmp_path / 'run', tmp_path / 'out'
    folder = out / 'run' if elsewhere else run
    run.mkdir()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text('x')
    used = USED[name] and not (elsewhere and name == 'last_checkpoint')
    options = dict(work_dir=str(run), out_dir=str(out))
    with claimed(goes_on=True, **options):
        pass
    if used:
        with pytest.raises(WorkDirError, match=r'--resume; .* --overwrite'):
            claimed(**options).__enter__()
        if name != 'last_checkpoint':
            start = str(folder / name)
            with pytest.raises(WorkDirError, match='would remove'):
                claimed(overwrite=True, start=start, **options).__enter__()
        assert (folder / name).exists()
    else:
        with claimed(**options):
            pass
    with claimed(overwrite=True, **options):
        assert (folder / name).exists() is not used


def test_the_options_contradict_each_other(tmp_path):
    argv = ['demo/mocov2_digits', '--work-dir', str(tmp_path)]
    args = train.parser().parse_args([*argv, '--resume', '--overwrite'])
    with pytest.raises(ValueError, match='--overwrite'):
        train.prepare(args)


def test_a_refused_run_changes_nothing(small_config, runner_of):
    first = small_config()
    runner_of(first).train()
    run = os.path.join(first.work_dir, 'epoch_1.pth')
    config = os.path.join(first.work_dir, 'mocov2_digits.py')
    before = [open(path, 'rb').read() for path in (run, config)]  # noqa: SIM115
    second = small_config(**{'model.m': 0.95})
    second.overwrite = False
    with pytest.raises(WorkDirError, match='epoch_1.pth'):
        runner_of(second).train()
    after = [open(path, 'rb').read() for path in (run, config)]  # noqa: SIM115
    assert before == after
    assert b'overwrite' not in before[1]
