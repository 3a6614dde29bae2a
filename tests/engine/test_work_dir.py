"""A work dir belongs to one run at a time, and to one run in all."""

import os
import signal
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmmoco.apis.config.adapt import limit_iterations
from mmmoco.apis.training import train
from mmmoco.engine import checkpoint_io
from mmmoco.engine import work_dir as module
from mmmoco.engine.checkpoint_io import CheckpointError
from mmmoco.engine.work_dir import WorkDirError, claimed
from mmmoco.restarts import why_started_again


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
    monkeypatch.setattr(module, 'log_warning', said.append)
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
    with claimed(overwrite=True, **options) as outdated:
        assert (folder / name).exists()
        assert (run / module.REPLACED).exists() is used
        outdated.remove()
        assert (folder / name).exists() is not used
        assert not (run / module.REPLACED).exists()


def test_the_options_contradict_each_other(tmp_path):
    with pytest.raises(ValueError, match='--overwrite'):
        prepare(tmp_path, resume=True, overwrite=True)


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


@pytest.mark.parametrize('fault', ['weights', 'another hook'])
def test_what_is_replaced_stays_until_all_is_checked(
    small_config, runner_of, tmp_path, monkeypatch, fault
):
    """And a restart, which comes before, does not go on from it."""
    first = small_config()
    runner_of(first).train()
    kept = [p for p in Path(first.work_dir).iterdir() if p.is_file()]
    before = {p: p.read_bytes() for p in kept if p.name != module.LOCK}
    second = small_config(**{'model.m': 0.95})
    if fault == 'weights':
        second.load_from = str(tmp_path / 'broken.pth')
        torch.save({'state_dict': {'a': torch.zeros(1)}}, second.load_from)
    runner = runner_of(second)
    if fault == 'another hook':
        monkeypatch.setattr(
            runner.hooks[-1], 'before_train', lambda _: 1 / 0, raising=False
        )
    with pytest.raises((CheckpointError, ZeroDivisionError)):
        runner.train()
    assert {path: path.read_bytes() for path in before} == before
    monkeypatch.setenv('SLURM_RESTART_COUNT', '1')
    assert why_started_again(second.work_dir, overwrite=True) is None
    assert 'COUNT' in why_started_again(second.work_dir)
    second.load_from = None
    runner_of(second).train()
    config = Path(first.work_dir, 'mocov2_digits.py')
    assert config.read_bytes() != before[config]
    assert not Path(first.work_dir, module.REPLACED).exists()


def test_two_work_dirs_with_one_folder_of_checkpoints(tmp_path):
    """Work dirs of one name, whose out_dir then is the same folder."""
    out = str(tmp_path / 'out')
    first, second = (str(tmp_path / name / 'run') for name in 'ab')
    with claimed(first, out):
        for options in ({}, {'goes_on': True}, {'overwrite': True}):
            with pytest.raises(WorkDirError, match=f'is going in {out}/run'):
                claimed(second, out, **options).__enter__()
        with claimed(str(tmp_path / 'c' / 'other'), out):
            pass
    with claimed(second, out):
        pass


@pytest.mark.parametrize('elsewhere', [False, True])
def test_an_older_state_does_not_lie_below_later_ones(tmp_path, elsewhere):
    """A restart takes the latest: it has to be of the run that stopped."""
    run, out = tmp_path / 'run', tmp_path / 'out' if elsewhere else None
    folder = out / 'run' if elsewhere else run
    for number in (1, 2, 3):
        state = dict(
            state_dict={},
            optimizer={},
            message_hub={},
            meta=dict(epoch=number, iter=4 * number),
        )
        checkpoint_io.write(state, folder / f'epoch_{number}.pth')
    (folder / 'epoch_4.pth').write_text('cut off')
    (folder / 'notes.txt').write_text('x')
    options = dict(work_dir=str(run), out_dir=out and str(out), goes_on=True)
    for start in (None, str(folder / 'epoch_3.pth'), 'no.pth'):
        with claimed(start=start, **options):
            pass
    start = str(folder / 'epoch_1.pth')
    with pytest.raises(WorkDirError, match=r'epoch_3.pth of iteration 12'):
        claimed(start=start, **options).__enter__()
    elsewhere = {**options, 'work_dir': str(tmp_path / 'new'), 'out_dir': None}
    with claimed(start=start, **elsewhere):
        pass
    with claimed(start=start, overwrite=True, **options) as outdated:
        assert (folder / 'epoch_3.pth').exists()
        outdated.remove()
        left = sorted(p.name for p in folder.iterdir() if p.suffix != '.lock')
    left = [name for name in left if name != '.lock']
    assert left == ['epoch_1.pth', 'epoch_4.pth', 'notes.txt']


def prepare(work_dir, **options):
    return train.prepare(
        'demo/mocov2_digits', work_dir=str(work_dir), **options
    )


@pytest.mark.parametrize('option', [{'overwrite': True}, {'load_from': 'a'}])
def test_resume_in_the_config_contradicts_as_the_option_does(tmp_path, option):
    with pytest.raises(ValueError, match='resume=True of the config'):
        prepare(tmp_path, **option, cfg_options={'resume': True})


def test_a_work_dir_that_is_a_file(tmp_path):
    (tmp_path / 'file').write_text('x')
    with pytest.raises(ValueError, match='is no folder; take another one'):
        prepare(tmp_path / 'file')


def test_a_work_dir_that_cannot_be_made(small_config, runner_of):
    with pytest.raises(ValueError, match=r"--work-dir '/proc/x' cannot be ma"):
        runner_of(small_config(work_dir='/proc/x'))


def test_what_is_no_config_of_a_training_is_named(tmp_path):
    text = tmp_path / 'config.txt'
    text.write_text('model = dict()\n')
    with pytest.raises(ValueError, match=r'config\.txt.*ends in \.py, \.json'):
        train.prepare(str(text))
    path = tmp_path / 'mine.py'
    for lines, part in (('x = 1', 'model'), ('model = dict(a=1)', 'train_d')):
        path.write_text(f'{lines}\n')
        with pytest.raises(ValueError, match=rf'mine\.py has no {part}'):
            train.prepare(str(path))
    with pytest.raises(ValueError, match='give a work_dir'):
        train.prepare(
            Config(dict(model={'a': 1}, train_dataloader={'dataset': {}}))
        )


@pytest.mark.parametrize('seed', [-1, 2**32])
def test_a_seed_that_numpy_does_not_take(tmp_path, seed):
    with pytest.raises(ValueError, match=f'--seed {seed}: .* to 4294967295'):
        prepare(tmp_path, seed=seed)


def test_a_complete_run_says_that_nothing_is_left(small_config, runner_of):
    runner_of(small_config()).train()
    cfg = small_config(resume=True)
    runner = runner_of(cfg)
    runner.train()
    log = (next(Path(runner.log_dir).glob('*.log'))).read_text()
    assert 'Nothing is left to train' in log
    assert 'is of iteration 4, and the run ends at 4' in log


def test_a_run_by_epochs_goes_on_by_iterations(small_config, runner_of):
    """The checkpoints that it kept are still its own."""
    first = small_config(**{'default_hooks.checkpoint.max_keep_ckpts': 2})
    runner_of(first).train()
    second = small_config(
        resume=True, **{'default_hooks.checkpoint.max_keep_ckpts': 2}
    )
    limit_iterations(second, 7)
    second.default_hooks.checkpoint.interval = 1
    runner = runner_of(second)
    runner.train()
    names = sorted(p.name for p in Path(first.work_dir).glob('*.pth'))
    assert names == ['iter_6.pth', 'iter_7.pth']
    log = (next(Path(runner.log_dir).glob('*.log'))).read_text()
    assert 'left alone' not in log


def test_a_batch_of_more_images_than_there_are(small_config, runner_of):
    """Without an epoch to count, images come again."""
    cfg = small_config(
        schedule='fit',
        **{
            'train_dataloader.batch_size': 100,
            'model.dictionary.size': 100,
        },
    )
    limit_iterations(cfg, 2)
    runner = runner_of(cfg)
    runner.train()
    assert runner.iter == 2


@pytest.mark.parametrize('kind', ['py', 'json'])
def test_the_config_of_a_run_says_the_same_when_it_is_read_again(
    kind, small_config, runner_of
):
    """Whatever a folder is called: mmengine fills in double braces."""
    cfg = small_config(place='{{$A:0}} {{ fileDirname }}')
    runner = runner_of(cfg)
    object.__setattr__(runner.cfg, '_filename', f'mine.{kind}')
    runner._write_config()
    again = Config.fromfile(Path(runner.work_dir, f'mine.{kind}'))
    assert again.place == cfg.place
    assert kind == 'json' or again.to_dict() == runner.cfg.to_dict()
