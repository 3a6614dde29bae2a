"""Where the processes of a run meet, nobody else does; Ctrl-C ends all."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Stands in for train.py: joins the others as it does, then stays.
SCRIPT = """
import os, sys, time
import torch
import torch.distributed as dist
from mmengine.config import Config
from mmmoco.apis.training.runner import init_processes

init_processes(Config(dict(model=dict())), 'pytorch')
total = torch.ones(1)
dist.all_reduce(total)
folder = sys.argv[1]
attempt = os.environ['TORCHELASTIC_RESTART_COUNT']
name = f'{folder}/{os.environ["RANK"]}_{attempt}'
with open(name + '.tmp', 'w') as file:
    file.write(f'{os.getpid()} {int(total)}')
os.rename(name + '.tmp', name)
time.sleep(600)
"""


@pytest.fixture
def launched(tmp_path):
    """Return a function that starts it with the real launcher."""
    tools = tmp_path / 'tools'
    shutil.copytree(ROOT / 'tools', tools)
    (tools / 'train.py').write_text(SCRIPT)
    started = []

    def start(**env):
        log = open(tmp_path / 'log', 'w')  # noqa: SIM115
        process = subprocess.Popen(
            ['bash', tools / 'dist_train.sh', tmp_path, '2'],
            stdout=log,
            stderr=log,
            start_new_session=True,
            # What a shell starts in the background ignores Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            env=os.environ
            | {
                'VIRTUAL_ENV': sys.prefix,
                'PYTHONPATH': str(ROOT),
                'TMPDIR': str(tmp_path),
                'OMP_NUM_THREADS': '1',
            }
            | env,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        for pid in tree(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.wait(20)


def wait_for(condition, folder):
    deadline = time.monotonic() + 150
    while not condition():
        assert time.monotonic() < deadline, (folder / 'log').read_text()
        time.sleep(0.1)


def met(folder, attempt=0):
    names = [folder / f'{rank}_{attempt}' for rank in range(2)]
    return all(name.exists() for name in names)


def tree(pid):
    """A process and all below it."""
    found = [pid]
    for each in found:
        for file in Path('/proc', str(each), 'task').glob('*/children'):
            try:
                found += map(int, file.read_text().split())
            except OSError:
                continue
    return [each for each in found if Path('/proc', str(each)).exists()]


def listening(pids):
    """Addresses, as the kernel writes them, that processes listen on."""
    inodes = set()
    for pid in pids:
        for link in Path('/proc', str(pid), 'fd').glob('*'):
            try:
                inodes.add(os.readlink(link))
            except OSError:
                continue
    found = []
    for name in ('tcp', 'tcp6'):
        table = Path('/proc/net', name)
        lines = table.read_text().splitlines()[1:] if table.exists() else []
        for line in lines:
            fields = line.split()
            if fields[3] == '0A' and f'socket:[{fields[9]}]' in inodes:
                found.append(fields[1].split(':')[0])
    return found


LOOPBACK = {'0100007F', '00000000000000000000000001000000'}


def test_the_list_of_listeners_is_not_blind():
    with socket.socket() as ours:
        ours.bind(('0.0.0.0', 0))
        ours.listen()
        assert '00000000' in listening([os.getpid()])


@pytest.mark.dist
def test_only_loopback_is_listened_on(launched, tmp_path):
    """Before and after a restart."""
    process = launched(MAX_RESTARTS='1')
    for attempt in range(2):
        wait_for(lambda: met(tmp_path, attempt), tmp_path)
        pids = tree(process.pid)
        assert len(pids) >= 4  # bash, torchrun and two processes
        found = listening(pids)
        # The processes listen for each other, so there is something to see.
        assert found and set(found) <= LOOPBACK, found
        (folder,) = tmp_path.glob('mmmoco_meeting_*')
        assert folder.stat().st_mode & 0o777 == 0o700
        victim, total = (tmp_path / f'1_{attempt}').read_text().split()
        assert total == '2'
        os.kill(int(victim), signal.SIGKILL)
    assert process.wait(60) != 0
    assert not list(tmp_path.glob('mmmoco_meeting_*'))


@pytest.mark.dist
def test_ctrl_c_ends_everything(launched, tmp_path):
    process = launched()
    wait_for(lambda: met(tmp_path), tmp_path)
    pids = tree(process.pid)
    assert set(listening(pids)) <= LOOPBACK
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(30) == 130
    time.sleep(0.5)
    assert [p for p in pids if alive(p)] == []
    assert not list(tmp_path.glob('mmmoco_meeting_*'))


def alive(pid):
    try:
        text = Path('/proc', str(pid), 'stat').read_text()
    except OSError:
        return False
    return text.rpartition(')')[2].split()[0] != 'Z'
