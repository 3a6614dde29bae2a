"""How much memory a run needs, counted on tensors without storage.

The model is built on fake tensors, which have shapes and lifetimes but no
bytes, and takes two optimizer steps on them. What is alive at each moment is
counted; nothing is guessed from the layers' types.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mmmoco.apis.model import build_without_memory
from mmmoco.engine.optim import ContrastOptimWrapper
from mmmoco.engine.train_step import TrainStep
from mmmoco.registry import MODELS, bare_type, in_scope_of

from . import sample_batch
from .live_bytes import LiveBytes, placed, storage_bytes

DTYPES = ('float32', 'bfloat16')


@dataclass
class Estimate:
    """Bytes that one process needs, at one precision.

    Attributes:
        dtype: ``'float32'`` or ``'bfloat16'`` (mixed precision).
        batch_size: Images of one process in one forward.
        method: How it was found.
        trained: Parameters that learn.
        frozen: Parameters that do not: key encoder, teacher, frozen layers.
        dictionary: Its buffers.
        buffers: All others (BatchNorm statistics and the like).
        optimizer: State of the optimizer.
        buckets: The distributed wrapper's copy of the gradients.
        gradients: When all of them are there.
        kept: What the forward pass leaves for the backward pass.
        peaks: Highest sum of everything, in each phase of a step.
    """

    dtype: str
    batch_size: int
    method: str
    trained: int = 0
    frozen: int = 0
    dictionary: int = 0
    buffers: int = 0
    optimizer: int = 0
    buckets: int = 0
    gradients: int = 0
    kept: int = 0
    peaks: dict[str, int] = field(default_factory=dict)

    @property
    def model(self) -> int:
        """What the model itself holds, before the first step."""
        return self.trained + self.frozen + self.dictionary + self.buffers

    @property
    def total(self) -> int:
        """The peak of the whole step."""
        return max(self.peaks.values()) + self.buckets

    @property
    def working(self) -> int:
        """Activations, gradients and temporaries at the peak."""
        return self.total - self.model - self.optimizer - self.buckets


def estimate_memory(
    cfg: Config,
    batch_size: int | None = None,
    processes: int = 1,
    dtype: str | None = None,
    foreach: bool | None = None,
) -> Estimate:
    """Estimate the memory of one process of a pre-training run.

    Args:
        cfg: Config of the run.
        batch_size: Images per process; the config's if None.
        processes: Of the run; several hold a second copy of the gradients.
        dtype: ``'float32'``, ``'bfloat16'``; the config's if None.
        foreach: Whether the optimizer handles all tensors at once, as it
            does on a GPU; its own choice if None.

    Raises:
        ValueError: If the config is none of pre-training.
    """
    check_config(cfg)
    batch_size = batch_size or int(cfg.train_dataloader.batch_size)
    dtype = dtype or config_dtype(cfg)
    sample = sample_batch.draw(cfg)

    device = 'cuda' if torch.cuda.is_available() else 'cpu'

    def count(model: Any, n: int) -> Estimate:
        batch = sample_batch.like(sample, n)
        return _count(cfg, model, batch, foreach, Estimate(dtype, n, ''))

    def real_model() -> Any:
        with in_scope_of(cfg):
            return MODELS.build(cfg.model)

    try:
        model = build_without_memory(cfg)
        with FakeTensorMode(allow_non_fake_inputs=True):
            result = count(placed(model, device), batch_size)
        result.method = 'fake tensors'
    except (RuntimeError, NotImplementedError, TypeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        reason = f'{type(error).__name__}: {error}'.splitlines()[0][:120]
        small = smallest_batch(real_model())
        low, high = (count(real_model(), n) for n in (small, 2 * small))
        result = _on_a_line(low, high, batch_size)
        result.method += f'; fake tensors failed with {reason}'
    if processes > 1:
        result.buckets = result.trained
    return result


def config_dtype(cfg: Config) -> str:
    """Return the precision that a config trains in."""
    name: str = cfg.optim_wrapper.get('dtype', 'float32')
    amp = (
        name != 'float32' or bare_type(cfg.optim_wrapper) == 'AmpOptimWrapper'
    )
    return 'bfloat16' if amp else 'float32'


def check_config(cfg: Config) -> None:
    """Refuse what is no config of pre-training.

    Raises:
        ValueError: Naming what it lacks.
    """
    for key in ('model', 'train_dataloader', 'optim_wrapper'):
        if cfg.get(key) is None:
            raise ValueError(f'The config has no {key}: it trains nothing.')
    if 'data_preprocessor' not in cfg.model:
        raise ValueError(
            'model.data_preprocessor is missing: this is no pre-training '
            'config of mmmoco.'
        )


def smallest_batch(model: nn.Module) -> int:
    """Return the smallest batch that every SplitBN can split, at least 2."""
    splits = [getattr(m, 'num_splits', 1) for m in model.modules()]
    # Each part needs two values for statistics.
    return 2 * math.lcm(*splits)


def _on_a_line(low: Estimate, high: Estimate, batch_size: int) -> Estimate:
    """Go on from two small batches to another one."""
    step = high.batch_size - low.batch_size
    ratio = (batch_size - low.batch_size) / step

    def line(a: int, b: int) -> int:
        return round(a + (b - a) * ratio)

    return replace(
        high,
        batch_size=batch_size,
        method='real tensors, extrapolated from batches of '
        f'{low.batch_size} and {high.batch_size}',
        kept=line(low.kept, high.kept),
        peaks={
            phase: line(low.peaks[phase], peak)
            for phase, peak in high.peaks.items()
        },
    )


class _Watched(ContrastOptimWrapper):
    """Tells the counter what goes on, and asks for no value of a tensor."""

    def __init__(self, counter: LiveBytes, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.counter = counter
        self.before = self.kept = self.gradients = 0

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with super().optim_context(model):
            self.before = self.counter.live
            with self.counter.during('forward'):
                yield

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        self.kept = self.counter.live - self.before
        with self.counter.during('backward'):
            super().backward(loss, **kwargs)

    def step(self, **kwargs: Any) -> None:
        self.gradients = storage_bytes(
            p.grad for p in self._learnt() if p.grad is not None
        )
        with self.counter.during('optimizer'):
            super().step(**kwargs)

    def _all_agree(self, finite: Tensor, norm: Tensor) -> bool:
        return True


def _count(
    cfg: Config,
    model: Any,
    batch: dict[str, Any],
    foreach: bool | None,
    result: Estimate,
) -> Estimate:
    """Run two optimizer steps, counting; write what was found."""
    model.train()
    counter = LiveBytes()
    micro = min(cfg.optim_wrapper.get('accumulative_counts', 1), 2)
    wrapper = _Watched(
        counter,
        dtype=result.dtype,
        optimizer=_optimizer(cfg, model, foreach),
        accumulative_counts=micro,
        clip_grad=cfg.optim_wrapper.get('clip_grad'),
    )
    train_step = TrainStep(model, wrapper, 2 * micro)
    # Writing them into the dictionary takes no memory of its own.
    model.commit_keys = model.discard_keys
    for part, phase in (
        (model.key_encoder, 'key pass'),
        (model.teacher, 'teacher pass'),
    ):
        if part is not None:
            part.register_forward_pre_hook(
                lambda *_, p=phase: counter.begin(p)
            )
            part.register_forward_hook(lambda *_: counter.end())
    result.trained = storage_bytes(
        p for p in model.parameters() if p.requires_grad
    )
    result.frozen = storage_bytes(model.parameters()) - result.trained
    result.dictionary = storage_bytes(
        b for each in model.dictionaries for b in each.buffers()
    )
    result.buffers = storage_bytes(model.buffers()) - result.dictionary
    counter.count([*model.parameters(), *model.buffers()])
    with counter:
        for i in range(2 * micro):
            if i == micro:
                counter.peaks.clear()
            train_step.begin()
            model.train_step(batch, wrapper)
            with counter.during('key update'):
                train_step.end(wrapper.stepped, wrapper.should_update())
    result.gradients, result.kept = wrapper.gradients, wrapper.kept
    result.optimizer = storage_bytes(
        value
        for state in wrapper.optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor)
    )
    result.peaks = {k: v for k, v in counter.peaks.items() if k}
    return result


def _optimizer(cfg: Config, model: nn.Module, foreach: bool | None) -> Any:
    settings = cfg.optim_wrapper.copy()
    settings.pop('dtype', None)
    settings.pop('loss_scale', None)
    with in_scope_of(cfg):
        optimizer = build_optim_wrapper(model, settings).optimizer
    if foreach is not None and 'foreach' in optimizer.defaults:
        for group in optimizer.param_groups:
            group['foreach'] = foreach
    return optimizer
