"""What the machine can do: the other side of what is measured."""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

#: Side of the matrices whose product gives the rate.
SIDE = {'cpu': 2048, 'cuda': 8192}


def fastest_device() -> str:
    """Return the GPU if there is one."""
    return 'cuda' if torch.cuda.is_available() else 'cpu'


def machine(device: str = 'cpu') -> str:
    """Return processor and the flags that matter here."""
    if device == 'cuda':
        return torch.cuda.get_device_name()
    info = Path('/proc/cpuinfo').read_text()
    model = re.search(r'model name\s*: (.*)', info)
    flags = re.findall(r'\b(avx2|avx512f|avx512_bf16|amx_bf16)\b', info)
    return (
        f'{model.group(1) if model else "CPU"}, {torch.get_num_threads()} '
        f'threads, {" ".join(sorted(set(flags))) or "no vector flags"}'
    )


def synchronise(device: str) -> None:
    """Wait for the device."""
    if device == 'cuda':
        torch.cuda.synchronize()


def flops_of(step: Callable[[], Any]) -> int:
    """Count the operations of one step.

    A multiplication and an addition count as two; only products of matrices
    and convolutions are counted.
    """
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def matmul_rate(device: str, dtype: torch.dtype | None) -> float:
    """Return floating-point operations a second of one matrix product.

    The fastest of six, by the better of two libraries: the one of the matrix
    product and the one of the convolutions, as a convolution of one pixel.

    Args:
        device: Where.
        dtype: Of the factors; None is float32.
    """
    side = SIDE[device]
    a, b = torch.randn(2, side, side, device=device).to(dtype)
    image = a.reshape(1, side, 1, side).contiguous(
        memory_format=torch.channels_last
    )
    kernel = b.reshape(side, side, 1, 1).contiguous(
        memory_format=torch.channels_last
    )
    ways: tuple[Callable[[], Any], ...] = (
        lambda: a @ b,
        lambda: F.conv2d(image, kernel),
    )
    return max(2 * side**3 / _seconds(way, device) for way in ways)


def _seconds(way: Callable[[], Any], device: str) -> float:
    seconds = []
    for _ in range(6):
        synchronise(device)
        start = time.perf_counter()
        way()
        synchronise(device)
        seconds.append(time.perf_counter() - start)
    return min(seconds)
