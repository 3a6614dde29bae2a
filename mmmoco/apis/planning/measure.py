"""How long a step takes here: measured, not guessed."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner

from mmmoco.apis.config.adapt import fit_workers, use_precision
from mmmoco.apis.preflight.memory_estimate import smallest_batch
from mmmoco.engine.train_step import TrainStep
from mmmoco.private_names import end_workers
from mmmoco.progress import track
from mmmoco.registry import MODELS, in_scope_of

STEPS, SECONDS = 10, 40.0
#: Steps before those that count: memory is taken, kernels are chosen.
_FIRST = 2


@dataclass(frozen=True)
class Speed:
    """What was measured.

    Attributes:
        seconds: Of an iteration with the whole batch.
        steps: That were measured.
        batch: Images of each.
        whole: Images of the whole batch, for which the time is scaled.
    """

    seconds: float
    steps: int
    batch: int
    whole: int

    def __str__(self) -> str:
        measured = self.seconds * self.batch / self.whole
        said = f'{self.steps} steps of {self.batch} images, {measured:.3g} s'
        if self.batch < self.whole:
            said += f' each, scaled to {self.seconds:.3g} s for {self.whole}'
        return said


def measure_speed(cfg: Config) -> Speed:
    """Train some steps with the config's own data, model and optimizer.

    Ten steps or 40 seconds, whichever ends first; at a smaller batch where
    fewer than three would be done.

    Args:
        cfg: Of a pre-training; it is not changed.

    Raises:
        ValueError: If not one step could be done in the time.
    """
    cfg = Config(cfg.to_dict())
    use_precision(cfg, amp=False, fast=False)
    fit_workers(cfg)
    whole = int(cfg.train_dataloader.batch_size)
    end = time.perf_counter() + SECONDS
    with in_scope_of(cfg):
        torch.manual_seed(0)
        model = MODELS.build(cfg.model)
        model.init_weights()
        model = model.to(get_device())
        settings = cfg.optim_wrapper.copy()
        settings.pop('accumulative_counts', None)
        wrapper = build_optim_wrapper(model, settings)
    step = TrainStep(model, wrapper, total=1000)
    least = min(whole, smallest_batch(model))
    small = min(whole, -(-8 // least) * least)
    # Steps of a few images tell what the whole batch will take; the first
    # ones are slow.
    with _batches(cfg, small) as batches:
        trial = min(_timed(step, batches) for _ in range(3))
    batch = whole
    rest = end - time.perf_counter()
    if (3 + _FIRST) * trial * whole / small > rest:
        share = rest / ((STEPS + _FIRST) * trial / small)
        batch = max(small, int(share) // least * least)
    times: list[float] = []
    with _batches(cfg, min(batch, whole)) as batches:
        for _ in track(range(STEPS + _FIRST), 'Measuring steps'):
            if time.perf_counter() >= end:
                break
            times.append(_timed(step, batches))
    counted = times[_FIRST:] or times[-1:] or [trial]
    batch = batch if times else small
    seconds = sum(counted) / len(counted)
    return Speed(seconds * whole / batch, len(counted), batch, whole)


@contextmanager
def _batches(cfg: Config, size: int) -> Iterator[Iterator[Any]]:
    """Give batches without end, as the training gets them."""
    settings = cfg.train_dataloader.to_dict()
    settings['batch_size'] = size
    settings['pin_memory'] = torch.cuda.is_available()
    settings['sampler']['infinite'] = True
    with in_scope_of(cfg):
        loader = Runner.build_dataloader(settings, seed=0)
    try:
        yield iter(loader)
    finally:
        end_workers(loader)


def _timed(step: TrainStep, batches: Iterator[Any]) -> float:
    """Return the seconds of an iteration, waiting for data included."""
    start = time.perf_counter()
    step(next(batches))
    if (device := get_device()) in ('cuda', 'mps'):
        getattr(torch, device).synchronize()
    return time.perf_counter() - start
