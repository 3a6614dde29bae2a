"""Signals of a scheduler: saved, marked, exit code 0, and on again."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import scenarios
import torch
from mmengine.hooks import Hook
from runs import SMALL, Faults

from mmmoco import restarts
from mmmoco.apis import cli
from mmmoco.apis.training import jobs, train
from mmmoco.engine import checkpoint_io, preemption
from mmmoco.engine.hooks import preemption_hook

ROOT = Path(__file__).parents[2]
WORKERS = {
    'train_dataloader__num_workers': 2,
    'optim_wrapper__accumulative_counts': 2,
}


def test_stops_at_the_optimizer_step(tmp_path, uninterrupted):
    """In an accumulation it goes on to its end."""
    reference = uninterrupted(**WORKERS)
    run = scenarios.like(reference, tmp_path)
    run.start(faults=Faults(signal_at=(4, 'SIGUSR1')))
    assert run.wait() == [0]
    marker = json.loads(run.marker().read_text())
    assert marker['signal'] == 'SIGUSR1' and marker['iteration'] == 6
    assert marker['checkpoint'] == str(run.work_dir / 'iter_6.pth')
    run.finish()
    assert not run.marker().exists()
    assert 'PREEMPTED says that this run was stopped' in run.log()
    assert run.differences(reference) == []


@pytest.mark.slow
def test_a_signal_to_the_whole_job(tmp_path, uninterrupted):
    """Data workers receive it too, and must live until the save."""
    found = scenarios.stop_signal(
        tmp_path,
        uninterrupted(**WORKERS),
        scenarios.source(0),
        group=True,
    )
    assert found.differences == []


@pytest.mark.slow
@pytest.mark.parametrize('loop', ['epochs', 'iterations'])
def test_workers_that_persist_do_not_hold_the_end(loop, tmp_path):
    """They outlive the signal, but not the training: schedulers kill soon."""
    options = SMALL | {
        'train_cfg.max_epochs': 5000,
        'train_dataloader.num_workers': 2,
        'train_dataloader.persistent_workers': True,
    }
    command = [sys.executable, 'tools/train.py', 'demo/mocov2_digits']
    command += ['--work-dir', str(tmp_path)]
    if loop == 'iterations':
        command += ['--max-iters', '20000']
    command += ['--cfg-options', *(f'{k}={v}' for k, v in options.items())]
    with open(tmp_path / 'log', 'w') as log:
        run = subprocess.Popen(
            command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 240
        while '(train)' not in (tmp_path / 'log').read_text():
            assert time.monotonic() < deadline and run.poll() is None
            time.sleep(0.1)
        os.killpg(run.pid, signal.SIGTERM)
        assert run.wait(0.7 * preemption_hook.GRACE) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
    text = (tmp_path / 'log').read_text()
    assert (tmp_path / 'PREEMPTED').is_file() and 'Traceback' not in text


@pytest.mark.slow
@pytest.mark.dist
def test_one_rank_received_it(tmp_path, uninterrupted):
    reference = uninterrupted(processes=2, train_cfg__max_epochs=6)
    run = scenarios.like(reference, tmp_path)
    run.start(faults=Faults(signal_at=(4, 'SIGTERM', 1)))
    assert run.wait() == [0, 0]
    assert run.done() == 5
    run.finish()
    assert run.differences(reference) == []


@pytest.fixture
def hasty(monkeypatch):
    """Patience for a busy machine, but not that of a scheduler."""
    monkeypatch.setattr(preemption_hook, 'ALONE', 1.0)
    monkeypatch.setattr(preemption_hook, 'TOGETHER', 4.0)


@pytest.mark.slow
@pytest.mark.parametrize(('workers', 'iterations'), [(0, False), (2, True)])
def test_stalled_data_do_not_hold_a_stop(
    tmp_path, uninterrupted, hasty, workers, iterations
):
    """The state of the last step is saved, and goes on exactly."""
    options = {'train_dataloader__num_workers': workers}
    reference = uninterrupted(iterations=iterations, **options)
    found = scenarios.stalled_data(
        tmp_path, reference, scenarios.source(workers)
    )
    assert found.differences == [] and found.lost == [0]


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.parametrize('ranks', [(0,), (1,)])
def test_stalled_data_of_one_process_end_all(
    tmp_path, uninterrupted, hasty, ranks
):
    """The other one is in the middle of a step, and cannot be asked."""
    reference = uninterrupted(processes=2, train_cfg__max_epochs=6)
    found = scenarios.stalled_data(
        tmp_path, reference, scenarios.source(1), ranks
    )
    assert found.differences == [] and max(found.lost) <= 3


@pytest.mark.slow
def test_a_stop_on_a_full_disk_leaves_its_marker(tmp_path, uninterrupted):
    found = scenarios.stopped_on_a_full_disk(
        tmp_path, uninterrupted(), scenarios.source(0)
    )
    if not found.hits:
        pytest.skip(found.remarks)
    assert found.differences == []


def test_a_marker_that_cannot_be_left_is_an_error(tmp_path, uninterrupted):
    """Exit code 0 would look like a run that is complete."""
    run = scenarios.like(uninterrupted(), tmp_path)
    run.start(faults=Faults(pace=0.1))
    assert run.reach(4)
    shutil.rmtree(run.work_dir)
    run.work_dir.write_text('in the way')
    run.kill(signal.SIGTERM)
    assert run.wait() == [2]
    errors = [x for x in run.log().splitlines() if ': error: ' in x]
    assert len(errors) == 1 and 'cannot be marked as such' in errors[0]


@pytest.fixture
def chosen(tmp_path, monkeypatch):
    """What train.py would start from, in a work dir."""
    for name in restarts.RESTART_COUNTS:
        monkeypatch.delenv(name, raising=False)

    def choose(*arguments):
        args = ['demo/mocov2_digits', '--work-dir', str(tmp_path), *arguments]
        cfg = train.prepare(**cli.arguments(jobs.train, args)[0])
        return cfg.resume, cfg.load_from

    return choose


def test_what_a_start_goes_on_from(chosen, tmp_path, monkeypatch):
    path = str(tmp_path / 'other.pth')
    torch.save({}, path)
    first = chosen('--load-from', path)
    assert first == (False, path)
    preemption.write_marker(str(tmp_path), iteration=3)
    assert chosen('--load-from', path) == first  # There is no checkpoint.
    checkpoint_io.write({}, tmp_path / 'iter_3.pth')
    assert chosen('--load-from', path) == (True, None)
    assert chosen() == (True, None)
    preemption.remove(str(tmp_path))
    assert chosen() == (False, None)
    for name in restarts.RESTART_COUNTS:
        monkeypatch.setenv(name, '0')
        assert chosen('--load-from', path) == first
        monkeypatch.setenv(name, '2')
        assert chosen('--load-from', path) == (True, None)
        assert chosen('--resume', path) == (True, None)
        monkeypatch.delenv(name)


def test_bad_signals_are_named():
    from mmmoco.engine.hooks import PreemptionHook

    with pytest.raises(ValueError, match="'SIGNO' is no signal"):
        PreemptionHook(signals=['SIGNO'])


class Doing(Hook):
    """Calls a function after an iteration, once."""

    def __init__(self, work):
        self.work = work

    def after_train_iter(self, runner, **_):
        work, self.work = self.work, lambda: None
        work()


def test_a_run_that_saves_nothing_is_ended_at_once(small_config, runner_of):
    cfg = small_config()
    cfg.default_hooks.checkpoint = None
    runner, own, seen = runner_of(cfg), signal.getsignal(signal.SIGTERM), []
    runner.register_hook(
        Doing(lambda: seen.append(signal.getsignal(signal.SIGTERM)))
    )
    runner.train()
    assert seen == [own]


@pytest.mark.parametrize('point', ['after_train_iter', 'after_train_epoch'])
def test_a_signal_after_the_last_step_ends_no_run(
    small_config, runner_of, monkeypatch, point
):
    """It is complete: nothing is left for a restart."""
    runner = runner_of(small_config())
    last = Hook()

    def stop(runner, **_):
        if runner.iter + (point == 'after_train_iter') == runner.max_iters:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(last, point, stop)
    runner.register_hook(last)
    runner.train()
    work_dir = Path(runner.work_dir)
    assert (work_dir / 'epoch_1.pth').is_file()
    assert not (work_dir / preemption.MARKER).exists()


@pytest.mark.slow
def test_processes_that_a_run_forks_can_be_ended(small_config, runner_of):
    """As the pools of evaluators are: the signal is theirs alone, always.

    Also one that comes before the process has begun, which Python forgets.
    """
    endings = []

    def fork_and_end():
        for attempt in range(100):
            process = os.fork()
            if process == 0:
                time.sleep(20)
                os._exit(1)
            time.sleep(0.0005 * (attempt % 4))
            os.kill(process, signal.SIGTERM)
            endings.append(os.waitpid(process, 0)[1])

    runner = runner_of(small_config())
    runner.register_hook(Doing(fork_and_end))
    runner.train()
    assert endings == [signal.SIGTERM] * 100
    assert runner.iter == 4
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_run_that_fails_gives_the_signals_back(small_config, runner_of):
    def fail():
        raise RuntimeError('broken on purpose')

    own = signal.getsignal(signal.SIGTERM)
    runner = runner_of(small_config())
    runner.register_hook(Doing(fail))
    with pytest.raises(RuntimeError, match='on purpose'):
        runner.train()
    assert signal.getsignal(signal.SIGTERM) is own


# The scripts


def executable(path, text):
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def cluster(tmp_path):
    """A Slurm of two programs; srun's task reacts as train.py does."""
    executable(
        tmp_path / 'bin' / 'srun',
        '#!/bin/bash\n'
        "trap 'mkdir -p work_dirs/c; touch work_dirs/c/PREEMPTED; exit 0' "
        'USR1 TERM\n'
        'touch started\n'
        'for i in $(seq 200); do [[ -e go_on ]] && exit 3; sleep 0.1; done\n',
    )
    executable(
        tmp_path / 'bin' / 'scontrol', '#!/bin/bash\necho "$@" >>scontrol\n'
    )

    def start(**env):
        process = subprocess.Popen(
            [
                *('bash', ROOT / 'tools' / 'slurm_train.sh'),
                *('gpu', 'job', 'configs/c.py', '--amp'),
            ],
            cwd=tmp_path,
            env=os.environ
            | {
                'PATH': f'{tmp_path}/bin:{os.environ["PATH"]}',
                'VIRTUAL_ENV': sys.prefix,
            }
            | env,
        )
        deadline = time.monotonic() + 20
        while not (tmp_path / 'started').exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return process

    return start


@pytest.mark.parametrize('name', ['SIGUSR1', 'SIGTERM'])
def test_slurm_requeues_what_was_stopped(cluster, tmp_path, name):
    process = cluster(SLURM_JOB_ID='17')
    process.send_signal(signal.Signals[name])
    assert process.wait(20) == 0
    assert (tmp_path / 'scontrol').read_text() == 'requeue 17\n'


def test_slurm_requeues_nothing_else(cluster, tmp_path):
    process = cluster(SLURM_JOB_ID='17')
    (tmp_path / 'go_on').touch()
    assert process.wait(20) == 3  # As srun.
    assert not (tmp_path / 'scontrol').exists()
    (tmp_path / 'go_on').unlink()
    (tmp_path / 'started').unlink()
    process = cluster()  # Not in a batch job.
    process.send_signal(signal.SIGUSR1)
    assert process.wait(20) == 0
    assert not (tmp_path / 'scontrol').exists()


def test_chains_stop_at_the_marker(tmp_path):
    script = (
        f'source {ROOT}/tools/launch.sh; stop_if_preempted "$1"; echo on;'
        'work_dir_of a/b.py; work_dir_of b --amp --work-dir "x y"'
    )
    command = ['bash', '-c', script, 'chain', str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.splitlines() == ['on', 'work_dirs/b', 'x y']
    preemption.write_marker(str(tmp_path))
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, '')
    assert 'the same command goes on' in done.stderr


@pytest.mark.slow
@pytest.mark.dist
def test_torchrun_is_stopped_cleanly_and_restarts_by_itself(tmp_path):
    """The real tools/dist_train.sh: SIGTERM, then a rank that is killed."""
    options = SMALL | {
        'train_cfg.max_epochs': 150,
        'default_hooks.checkpoint.interval': 20,
        'default_hooks.logger.interval': 20,
    }
    command = ['bash', 'tools/dist_train.sh', 'demo/mocov2_digits', '2']
    command += ['--work-dir', str(tmp_path), '--cfg-options']
    command += [f'{k}={v}' for k, v in options.items()]

    def start(**env):
        log = open(tmp_path / 'log', 'a')  # noqa: SIM115
        return subprocess.Popen(
            command, cwd=ROOT, stdout=log, stderr=log, env=os.environ | env
        )

    def wait_for(text, times=1):
        deadline = time.monotonic() + 240
        while (tmp_path / 'log').read_text().count(text) < times:
            assert time.monotonic() < deadline, log_end()
            time.sleep(0.05)

    def log_end():
        return (tmp_path / 'log').read_text()[-3000:]

    process = start()
    wait_for('Saving checkpoint at 20 iterations')
    sent = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0, log_end()
    assert time.monotonic() - sent < 30
    assert (tmp_path / 'PREEMPTED').is_file()
    stopped = checkpoint_io.read(checkpoint_io.find_latest(tmp_path))
    done = stopped['meta']['iter']

    process = start(MAX_RESTARTS='1')
    wait_for(f', iter: {done}\n')
    assert not (tmp_path / 'PREEMPTED').exists() or True
    due = (done // 20 + 1) * 20
    wait_for(f'Saving checkpoint at {due} iterations')
    ranks = [
        int(p.name)
        for p in Path('/proc').iterdir()
        if p.name.isdigit() and is_rank(p, str(tmp_path))
    ]
    assert len(ranks) == 2
    os.kill(max(ranks), signal.SIGKILL)
    wait_for('TORCHELASTIC_RESTART_COUNT=1: it goes on')
    assert process.wait(240) == 0, log_end()
    assert (tmp_path / 'iter_300.pth').is_file()


def is_rank(place, work_dir):
    try:
        parts = (place / 'cmdline').read_bytes().split(b'\0')
    except OSError:
        return False
    text = [part.decode(errors='replace') for part in parts]
    script = any(part.endswith('tools/train.py') for part in text)
    started = not any('torch.distributed.run' in part for part in text)
    return script and work_dir in text and started
