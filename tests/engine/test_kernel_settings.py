"""What ``--fast`` sets for kernels and memory."""

import subprocess
import sys

import pytest
import torch

PROGRAM = """
import resource, sys
import torch
from mmmoco.engine.hooks import KernelSettingsHook

KernelSettingsHook(keep_memory=sys.argv[1] == 'kept').before_run(None)
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
@pytest.mark.skipif(torch.cuda.is_available(), reason='sets up CPUs')
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
