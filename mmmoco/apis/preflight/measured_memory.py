"""What a run really takes: a few steps in a process of their own."""

import ctypes
import gc
import multiprocessing
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope

from mmmoco.engine.checkpoint_io import guarded
from mmmoco.engine.train_step import TrainStep
from mmmoco.registry import MODELS

from . import sample_batch

STEPS = 3

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4  # malloc.h


@dataclass
class Measured:
    """Bytes that a process took.

    Attributes:
        device: ``'cuda'`` or ``'cpu'``.
        peak: CUDA: the highest that PyTorch had allocated. CPU: the highest
            resident memory during the steps, less that after building.
    """

    device: str
    peak: int


def measure(cfg: Config, batch_size: int) -> Measured:
    """Run three optimizer steps in a fresh process and watch its memory.

    Args:
        cfg: Config of the run, its precision settled.
        batch_size: Images in one forward.

    Raises:
        RuntimeError: If the process is killed.
    """
    sample = sample_batch.draw(cfg)
    spawn = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        try:
            return pool.submit(
                _steps, cfg.to_dict(), sample, batch_size
            ).result()
        except BrokenProcessPool:
            raise RuntimeError(
                'The measuring process was killed; with --batch-size '
                f'{batch_size} there may be too little memory.'
            ) from None


@guarded
def _steps(
    settings: dict[str, Any], sample: dict[str, Any], batch_size: int
) -> Measured:
    MMLogger.get_instance('measured_memory', log_level='ERROR')
    return_freed_memory()
    cfg = Config(settings)
    init_default_scope(cfg.get('default_scope', 'mmmoco'))
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    model: Any = MODELS.build(cfg.model)
    model.init_weights()
    model = model.to(device).train()
    micro = min(cfg.optim_wrapper.get('accumulative_counts', 1), 2)
    cfg.optim_wrapper.accumulative_counts = micro
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    train_step = TrainStep(model, wrapper, STEPS * micro)

    def run() -> None:
        for _ in range(STEPS * micro):
            train_step(sample_batch.like(sample, batch_size))

    growth = peak_growth(run, device)
    if device == 'cuda':
        return Measured(device, torch.cuda.max_memory_allocated())
    return Measured(device, growth)


def return_freed_memory() -> None:
    """Let glibc give every large block pages of its own, freed at once.

    Else resident memory shows what the allocator keeps, not what is in use.
    """
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_THRESHOLD, 65536)
    libc.mallopt(M_MMAP_MAX, 1_000_000)
    libc.mallopt(M_TRIM_THRESHOLD, 65536)


def peak_growth(act: Callable[[], Any], device: str = 'cpu') -> int:
    """Return by how many bytes the memory in use grows at most.

    Args:
        act: What is done meanwhile.
        device: Whose memory counts; without that of libraries.

    Raises:
        OSError: On a CPU, if this is not Linux.
    """
    gc.collect()
    if device == 'cuda':
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        act()
        return torch.cuda.max_memory_allocated() - before
    forget = Path('/proc/self/clear_refs')
    if not forget.exists():
        raise OSError('Resident memory can be measured on Linux only.')
    ctypes.CDLL(None).malloc_trim(0)
    forget.write_text('5')
    before = _status('RssAnon')
    act()
    return _status('VmHWM') - _status('RssFile') - _status('RssShmem') - before


def _status(row: str) -> int:
    """Return what Linux counts for this process, in bytes."""
    status = Path('/proc/self/status').read_text()
    return 1024 * int(re.findall(rf'{row}:\s+(\d+) kB', status)[0])
