"""The estimate of memory against what a run really takes."""

import ctypes
import gc
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from own_process import in_own_process, prepare

from mmmoco.apis import cli
from mmmoco.apis.config.adapt import use_precision
from mmmoco.apis.config.files import load_config
from mmmoco.apis.preflight import sample_batch
from mmmoco.apis.preflight.memory import readable
from mmmoco.apis.preflight.memory_estimate import (
    check_config,
    config_dtype,
    estimate_memory,
)
from mmmoco.engine.checkpoint_io import guarded
from mmmoco.engine.train_step import TrainStep
from mmmoco.registry import MODELS

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
    """
    sample = sample_batch.draw(cfg)
    return in_own_process(_steps, cfg.to_dict(), sample, batch_size)


@guarded
def _steps(
    settings: dict[str, Any], sample: dict[str, Any], batch_size: int
) -> Measured:
    prepare()
    return_freed_memory()
    cfg = Config(settings)
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


def benchmark(
    config: str,
    *,
    batch_size: int | None = None,
    cfg_options: cli.Settings | None = None,
) -> None:
    """Hold the estimate of a config's memory against three real steps.

    Args:
        config: Path, name, or package::path.
        batch_size: Images per process in one forward (the config's).
        cfg_options: Override settings of the config.
    """
    if batch_size is not None and batch_size < 1:
        raise cli.UsageError(f'--batch-size {batch_size}: at least 1.')
    cfg = load_config(config, cfg_options)
    check_config(cfg)
    use_precision(cfg, amp=False, fast=False)
    dtype = config_dtype(cfg)
    estimate = estimate_memory(cfg, batch_size, 1, dtype)
    measured = measure(cfg, estimate.batch_size)
    # Libraries are in a process's memory too: only the growth counts.
    on_cpu = measured.device == 'cpu'
    own = estimate.total - (estimate.model if on_cpu else 0)
    what = 'allocated on the GPU'
    if on_cpu:
        what = 'resident memory beyond that after building'
    print(
        f'{config}, {estimate.batch_size} images, {dtype}: peak of {what}\n'
        f'measured {readable(measured.peak)}, estimated {readable(own)}, '
        f'error {own / measured.peak - 1:+.1%}'
    )


if __name__ == '__main__':
    cli.main(benchmark)
