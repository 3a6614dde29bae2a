"""What a run really takes: a few steps in a process of their own."""

import ctypes
import gc
import multiprocessing
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope

from mmmoco.engine.train_step import TrainStep
from mmmoco.registry import MODELS

from . import sample_batch

STEPS = 3


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
        RuntimeError: If the process fails, with its last words.
    """
    sample = sample_batch.draw(cfg, sample_batch.open_dataset(cfg), 1)
    context = multiprocessing.get_context('spawn')
    ours, theirs = context.Pipe()
    settings = cfg.to_dict()
    child = context.Process(
        target=_child, args=(theirs, settings, sample, batch_size), daemon=True
    )
    with _own_pages():
        child.start()
    theirs.close()
    try:
        return _watch(ours, child.pid)
    except EOFError:
        child.join()
        raise RuntimeError(
            f'The measuring process ended with code {child.exitcode}; with '
            f'--batch-size {batch_size} there may be too little memory.'
        ) from None
    finally:
        child.join(timeout=60)


@contextmanager
def _own_pages() -> Iterator[None]:
    """Let glibc give every large block pages of its own, freed at once.

    Else resident memory shows what the allocator keeps, not what is in use.
    """
    settings = {
        'MALLOC_MMAP_THRESHOLD_': '65536',
        'MALLOC_MMAP_MAX_': '1000000',
        'MALLOC_TRIM_THRESHOLD_': '65536',
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _watch(pipe: Connection, pid: int | None) -> Measured:
    """Follow the process from 'built' to its end."""
    status = Path(f'/proc/{pid}/status')
    built = peak = 0
    while True:
        if pipe.poll(0.001):
            message = pipe.recv()
            if message == 'built':
                built = peak = _resident(status)
                pipe.send('go')
            elif isinstance(message, Exception):
                raise RuntimeError(f'{type(message).__name__}: {message}')
            else:
                device, allocated = message
                return Measured(device, allocated or peak - built)
        elif built:
            peak = max(peak, _resident(status))


def _resident(status: Path) -> int:
    """Resident memory, without the pages of files (libraries)."""
    match = re.search(r'RssAnon:\s+(\d+) kB', status.read_text())
    if match is None:
        raise RuntimeError('Resident memory can be measured on Linux only.')
    return int(match.group(1)) * 1024


def _child(
    pipe: Connection,
    settings: dict[str, Any],
    sample: dict[str, Any],
    batch_size: int,
) -> None:
    try:
        pipe.send(_run(pipe, Config(settings), sample, batch_size))
    except Exception as error:
        pipe.send(RuntimeError(f'{type(error).__name__}: {error}'))


def _run(
    pipe: Connection, cfg: Config, sample: dict[str, Any], batch_size: int
) -> tuple[str, int]:
    MMLogger.get_instance('measured_memory', log_level='ERROR')
    init_default_scope(cfg.get('default_scope', 'mmmoco'))
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    model: Any = MODELS.build(cfg.model)
    model.init_weights()
    model = model.to(device).train()
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    micro = min(wrapper._accumulative_counts, 2)
    wrapper._accumulative_counts = micro
    train_step = TrainStep(model, wrapper, STEPS * micro)
    gc.collect()
    if device == 'cuda':
        torch.cuda.reset_peak_memory_stats()
    else:
        ctypes.CDLL(None).malloc_trim(0)
    pipe.send('built')
    pipe.recv()
    for _ in range(STEPS * micro):
        train_step(sample_batch.like(sample, batch_size))
    peak = torch.cuda.max_memory_allocated() if device == 'cuda' else 0
    return device, peak
