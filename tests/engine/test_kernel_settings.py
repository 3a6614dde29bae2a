"""What ``--fast`` sets for kernels and memory."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from mmmoco.engine.hooks import KernelSettingsHook
from mmmoco.functional import nearest

PROGRAM = """
import resource, sys
import torch
from mmmoco.engine.hooks import KernelSettingsHook
from mmmoco.functional import nearest

class Runner:
    model = torch.nn.Linear(1, 1)

KernelSettingsHook(keep_memory=sys.argv[1] == 'kept').before_run(Runner)
for _ in range(40):
    torch.empty(2**24).fill_(1.0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    torch.empty(2**24).fill_(1.0)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how: str) -> int:
    """Count the pages that four more tensors of 64 MiB make it map."""
    output = subprocess.check_output(
        [sys.executable, '-c', PROGRAM, how], text=True
    )
    return int(output.split()[-1])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason="glibc's allocator")
def test_freed_memory_is_not_mapped_again():
    """In the long run: at first, blocks are a few bytes short for the next.

    PyTorch aligns its blocks, and glibc keeps what it cuts off for small
    objects, up to seven pieces of a size; from then on the pieces go back.
    """
    kept, returned = page_faults('kept'), page_faults('returned')
    # 16,384 pages of 4 KiB each; 32 where the system has them huge.
    assert returned >= 4 * 32
    assert kept < returned / 10


@pytest.fixture
def flags():
    """Read PyTorch's flags, which begin as False and are put back."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn

    def read():
        return matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark

    def write(*values):
        precision = 'high' if values[0] else 'highest'
        torch.set_float32_matmul_precision(precision)
        cudnn.allow_tf32, cudnn.benchmark = values[1:]

    before = read()
    write(False, False, False)
    yield read
    write(*before)
    torch.use_deterministic_algorithms(False)


def settle(device, **options):
    """Run the hook for a model on a device, whatever the machine has."""
    model = torch.nn.Linear(1, 1, device=device)
    KernelSettingsHook(keep_memory=False, **options).before_run(
        SimpleNamespace(model=model)
    )


def test_neighbours_are_found_between_runs_with_and_without_tf32(flags):
    """PyTorch raises where its two ways of setting TF32 were mixed."""
    for tf32 in (True, False, True):
        settle('meta', tf32=tf32)
        nearest(torch.eye(3), torch.eye(3), 1, backend='torch')
        assert flags()[0] is tf32


def test_the_device_is_that_of_the_model(flags, monkeypatch):
    """A benchmark on the CPU of a machine with a GPU is one on a CPU."""
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '0')  # for mmengine's log
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    settle('cpu')
    assert flags() == (False, False, False)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    settle('meta')  # any device that is not the CPU
    assert flags() == (True, True, True)


def test_a_deterministic_run_stays_so(flags):
    torch.use_deterministic_algorithms(True)
    settle('meta')
    assert flags() == (False, False, False)
