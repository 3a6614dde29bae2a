"""What macOS and Windows lack is taken away: Linux is all that runs here."""

import os
import signal
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config

from mmmoco import system
from mmmoco.apis.config import adapt
from mmmoco.apis.planning import measure
from mmmoco.engine.checkpoint_io import writing

from .conftest import SMALL

#: What is missing by ``sys.platform``: modules, and names in others.
MISSING = {
    'darwin': (
        ['spwd', 'ossaudiodev'],
        {os: ['sched_getaffinity', 'posix_fadvise', 'memfd_create']},
    ),
    'win32': (
        ['fcntl', 'resource', 'pwd', 'grp', 'termios', 'tty', 'pty'],
        {
            os: [
                *('sched_getaffinity', 'fork', 'register_at_fork', 'sysconf'),
                *('pread', 'pwrite', 'geteuid', 'getuid', 'killpg', 'setsid'),
                *('O_NOFOLLOW', 'O_NONBLOCK', 'O_CLOEXEC', 'statvfs'),
            ],
            signal: [
                *('SIGUSR1', 'SIGUSR2', 'SIGALRM', 'SIGKILL', 'SIGHUP'),
                *('alarm', 'setitimer', 'pthread_sigmask'),
            ],
        },
    ),
}
#: Libraries below us are imported first: theirs are the system's.
SCRIPT = """
import importlib, os, pkgutil, platform, signal, sys
import cv2, matplotlib.pyplot, mmcv, mmengine.runner, mmpretrain, sklearn.svm
import torch.distributed.elastic.multiprocessing, torchvision
import yapf.yapflib.yapf_api
from torch.utils._python_dispatch import TorchDispatchMode

sys.platform, work_dir, modules, names, options = {given}
windows = sys.platform == 'win32'
platform.system = lambda: 'Windows' if windows else 'Darwin'
sys.modules.update(dict.fromkeys(modules))
for module, lacking in names.items():
    for name in lacking:
        delattr(sys.modules[module], name)
if windows:
    import ctypes

    def load(name, *_, **__):
        raise TypeError('a name is needed on Windows')

    def kill(number, what):
        raise AssertionError('Windows ends processes that are asked for')

    ctypes.CDLL, os.kill = load, kill

import mmmoco
import mmmoco.apis

found = 0
for module in pkgutil.walk_packages(mmmoco.__path__, 'mmmoco.'):
    if not module.name.endswith('__main__'):
        importlib.import_module(module.name)
        found += 1
assert found > 200, found


class NoFloat64(TorchDispatchMode):
    # As on GPUs of Apple.
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {{}}))
        for value in result if isinstance(result, tuple) else [result]:
            if isinstance(value, torch.Tensor):
                assert value.dtype != torch.float64, function
        return result


from mmengine.model import BaseModel

theirs, steps = BaseModel.train_step, []


def train_step(self, *args, **kwargs):
    steps.append(len(steps))
    with NoFloat64():
        return theirs(self, *args, **kwargs)


BaseModel.train_step = train_step
for more in {{}}, dict(resume=True):  # Over what a killed process left.
    name = f'.iter_9.pth~{{__import__("socket").gethostname()}}~1~0a.tmp'
    os.makedirs(work_dir, exist_ok=True)
    open(os.path.join(work_dir, name), 'w').close()
    done = mmmoco.train(
        'demo/mocov2_digits',
        work_dir=work_dir,
        max_iters=2,
        fast=True,
        cfg_options=options,
        **more,
    )
assert steps == [0, 1], steps
print(done)
parts = {{k: v for k, v in options.items() if k[:3] in ('mod', 'knn')}}
print(
    mmmoco.evaluate_knn(
        done.checkpoint, config='demo/mocov2_digits', cfg_options=parts
    )
)
from mmmoco.apis.planning.machine import this_machine

print(this_machine())
"""


@pytest.mark.slow
@pytest.mark.parametrize('platform', MISSING)
def test_pre_training_runs(platform, tmp_path):
    modules, names = MISSING[platform]
    given = (
        platform,
        str(tmp_path),
        modules,
        {module.__name__: lacking for module, lacking in names.items()},
        SMALL,
    )
    done = subprocess.run(
        [sys.executable, '-c', SCRIPT.format(given=given)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'Trained for 2 iterations' in done.stdout
    assert 'top-1' in done.stdout and 'CPU cores' in done.stdout


@pytest.mark.parametrize(
    ('wrapper', 'amp'),
    [
        (dict(type='AmpOptimWrapper', loss_scale='dynamic'), False),
        (dict(type='ContrastOptimWrapper', dtype='float16'), False),
        (dict(type='ContrastOptimWrapper', dtype='bfloat16'), False),
        (dict(type='OptimWrapper'), True),
    ],
)
def test_a_gpu_of_apple_computes_in_float32(monkeypatch, wrapper, amp):
    monkeypatch.setattr(adapt, 'get_device', lambda: 'mps')
    cfg = Config(dict(optim_wrapper=wrapper, model=dict(type='MoCoV2')))
    adapt.use_precision(cfg, amp=amp, fast=False)
    assert cfg.optim_wrapper == dict(
        type='mmmoco.ContrastOptimWrapper', dtype='float32'
    )


def test_a_gpu_of_apple_is_waited_for(monkeypatch):
    calls = []
    monkeypatch.setattr(measure, 'get_device', lambda: 'mps')
    monkeypatch.setattr(torch.mps, 'synchronize', lambda: calls.append(1))
    assert measure._timed(calls.append, iter([0])) >= 0
    assert calls == [0, 1]


def test_a_link_is_refused_without_flags_of_the_system(monkeypatch, tmp_path):
    monkeypatch.delattr(os, 'O_NOFOLLOW')
    monkeypatch.setattr(writing, '_GUARDS', os.O_CLOEXEC)
    (tmp_path / 'file').touch()
    (tmp_path / 'link').symlink_to('file')
    os.close(writing.open_own(tmp_path / 'file'))
    with pytest.raises(OSError, match='a link, a pipe or a device'):
        writing.open_own(tmp_path / 'link')


def test_what_the_system_does_not_tell(monkeypatch):
    assert system.memory() > 1 << 28
    monkeypatch.delattr(os, 'sched_getaffinity')
    assert system.cores() == os.cpu_count()
    monkeypatch.delattr(os, 'sysconf')
    monkeypatch.setitem(sys.modules, 'resource', None)
    assert system.memory() is None
    assert system.flags('O_NO_SUCH', 'O_APPEND') == os.O_APPEND
