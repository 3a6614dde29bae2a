"""How much memory a run needs, counted on tensors without storage.

The model is built on fake tensors, which have shapes and lifetimes but no
bytes, and takes two optimizer steps on them. What is alive at each moment is
counted; nothing is guessed from the layers' types.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from mmmoco.engine.optim import ContrastOptimWrapper
from mmmoco.engine.train_step import TrainStep
from mmmoco.engine.without_memory import build_without_memory
from mmmoco.registry import MODELS, bare_type, in_scope_of

from . import sample_batch
from .live_bytes import LiveBytes, placed, storage_bytes

DTYPES = ('float32', 'bfloat16')
#: An even number of iterations, and of epochs, that were done before.
LATE = 10**6


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
        gradients: When all of them are there.
        kept: What the forward pass leaves for the backward pass.
        peaks: Highest sum of everything, in each phase of a step.
        buckets: The distributed wrapper's copy of the gradients.
    """

    dtype: str
    batch_size: int
    method: str
    trained: int
    frozen: int
    dictionary: int
    buffers: int
    optimizer: int
    gradients: int
    kept: int
    peaks: dict[str, int]
    buckets: int = 0

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

    def figures(self) -> dict[str, Any]:
        """Return all of it by name, in bytes."""
        return {**asdict(self), 'total': self.total, 'working': self.working}


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
    settings = (cfg, sample_batch.draw(cfg), dtype, foreach)
    try:
        model = build_without_memory(cfg)
        with FakeTensorMode(allow_non_fake_inputs=True):
            device = 'cuda' if torch.cuda.is_available() else 'cpu'
            model = placed(model, device)
            model.data_preprocessor.to(device)
            result = _count(model, batch_size, *settings)
    except (RuntimeError, NotImplementedError, TypeError) as error:
        if isinstance(error, torch.cuda.OutOfMemoryError):
            raise
        reason = f'{type(error).__name__}: {error}'.splitlines()[0][:120]
        small = smallest_batch(_real_model(cfg))
        low, high = (
            _count(_real_model(cfg), n, *settings) for n in (small, 2 * small)
        )
        result = _on_a_line(low, high, batch_size)
        result.method += f'; fake tensors failed with {reason}'
    if processes > 1:
        result.buckets = result.trained
    return result


def config_dtype(cfg: Config) -> str:
    """Return the precision that a config trains in."""
    amp = bare_type(cfg.optim_wrapper) == 'AmpOptimWrapper'
    plain = cfg.optim_wrapper.get('dtype', 'float32') == 'float32'
    return 'float32' if plain and not amp else 'bfloat16'


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
    ratio = (batch_size - low.batch_size) / (high.batch_size - low.batch_size)

    def line(a: int, b: int) -> int:
        return round(a + (b - a) * ratio)

    return replace(
        high,
        batch_size=batch_size,
        method='real tensors, extrapolated from batches of '
        f'{low.batch_size} and {high.batch_size}',
        kept=line(low.kept, high.kept),
        peaks={p: line(low.peaks[p], high.peaks[p]) for p in high.peaks},
    )


def _real_model(cfg: Config) -> Any:
    with in_scope_of(cfg):
        return MODELS.build(cfg.model)


class _Watched(ContrastOptimWrapper):
    """Tells the counter what goes on, and asks for no value of a tensor."""

    counter: LiveBytes
    gradients = 0

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with super().optim_context(model), self.counter.during('forward'):
            yield

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
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
    model: Any,
    batch_size: int,
    cfg: Config,
    sample: dict[str, Any],
    dtype: str,
    foreach: bool | None,
) -> Estimate:
    """Run two optimizer steps, counting."""
    model.train()
    counter = LiveBytes()
    settings = cfg.optim_wrapper.copy()
    micro = min(settings.get('accumulative_counts', 1), 2)
    settings.update(type=_Watched, dtype=dtype, accumulative_counts=micro)
    settings.pop('use_fsdp', None)  # An option of AmpOptimWrapper's alone.
    with in_scope_of(cfg):
        wrapper: Any = build_optim_wrapper(model, settings)
    wrapper.counter, optimizer = counter, wrapper.optimizer
    if foreach is not None and 'foreach' in optimizer.defaults:
        for group in optimizer.param_groups:
            group['foreach'] = foreach
    # Late: then everything is on that waits for an epoch.
    train_step = TrainStep(
        model, wrapper, LATE + 2 * micro, done=LATE, epoch_length=1
    )
    # Writing them into the dictionary takes no memory of its own.
    model.commit_keys = model.discard_keys
    passes = {'key pass': model.key_encoder, 'teacher pass': model.teacher}
    for phase, part in passes.items():
        if part is not None:
            part.forward = counter.during(phase)(part.forward)
    batch = sample_batch.like(sample, batch_size)
    parameters = storage_bytes(model.parameters())
    learn = [p for p in model.parameters() if p.requires_grad]
    trained = storage_bytes(learn)
    dictionary = storage_bytes(
        b for each in model.dictionaries for b in each.buffers()
    )
    counter.count([*model.parameters(), *model.buffers()])
    with counter:
        for i in range(2 * micro):
            if i == micro:
                counter.peaks.clear()
            train_step.begin()
            model.train_step(batch, wrapper)
            with counter.during('key update'):
                train_step.end(wrapper.stepped, wrapper.should_update())
    states = (x for s in optimizer.state.values() for x in s.values())
    return Estimate(
        dtype,
        batch_size,
        'fake tensors',
        trained=trained,
        frozen=parameters - trained,
        dictionary=dictionary,
        buffers=storage_bytes(model.buffers()) - dictionary,
        optimizer=storage_bytes(x for x in states if isinstance(x, Tensor)),
        gradients=wrapper.gradients,
        kept=counter.started['backward'] - counter.started['forward'],
        peaks={name: n for name, n in counter.peaks.items() if name},
    )
