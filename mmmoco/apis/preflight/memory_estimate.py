"""How much memory a run needs, counted on tensors without storage.

The model is built without storage, and two optimizer steps of it run on fake
tensors, which have shapes and lifetimes but no bytes. What is alive at each
moment is counted; nothing is guessed from the layers' types.
"""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from importlib import import_module
from typing import Any

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from torch import nn
from torch._subclasses.fake_tensor import (
    FakeTensorMode,
    unset_fake_temporarily,
)

from mmmoco.apis.model import build_without_memory
from mmmoco.engine.train_step import TrainStep
from mmmoco.functional import ShufflePlan
from mmmoco.registry import MODELS, bare_type

from . import sample_batch
from .live_bytes import LiveBytes, materialise, storage_bytes

DTYPES = {'float32': None, 'bfloat16': torch.bfloat16}


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

    @property
    def peak_phase(self) -> str:
        """When the peak is reached."""
        return max(self.peaks, key=lambda phase: self.peaks[phase])


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
    loader = cfg.train_dataloader
    batch_size = batch_size or int(loader.batch_size)
    if batch_size < 1:
        raise ValueError(f'--batch-size {batch_size}: must be at least 1.')
    dtype = dtype or config_dtype(cfg)
    samples = sample_batch.open_dataset(cfg)
    sample = sample_batch.draw(cfg, samples, 1)
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    result = Estimate(dtype, batch_size, 'fake tensors')
    try:
        _simulate_fake(cfg, sample, result, device, foreach)
    except (RuntimeError, NotImplementedError, TypeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        reason = f'{type(error).__name__}: {error}'.splitlines()[0][:120]
        result = _extrapolate(cfg, sample, result, foreach)
        result.method += f'; fake tensors failed with {reason}'
    if processes > 1:
        result.buckets = result.trained
    return result


def config_dtype(cfg: Config) -> str:
    """Return the precision that a config trains in."""
    name: str = cfg.optim_wrapper.get('dtype', 'float32')
    kind = bare_type(cfg.optim_wrapper)
    amp = name != 'float32' or kind == 'AmpOptimWrapper'
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


def _simulate_fake(
    cfg: Config,
    sample: dict[str, Any],
    result: Estimate,
    device: str,
    foreach: bool | None,
) -> None:
    model = build_without_memory(cfg)
    with FakeTensorMode(allow_non_fake_inputs=True), _real_plans():
        materialise(model, device)
        _simulate(cfg, model, sample, result, foreach)


@contextmanager
def _real_plans() -> Iterator[None]:
    """Draw permutations of keys for real: fake tensors have no values."""
    base: Any = import_module('mmmoco.models.algorithms.momentum_contrast')
    draw = base.shuffle_plan

    def plan(*args: Any) -> ShufflePlan:
        with unset_fake_temporarily():
            drawn: ShufflePlan = draw(*args)
            return drawn

    base.shuffle_plan = plan
    try:
        yield
    finally:
        base.shuffle_plan = draw


def _extrapolate(
    cfg: Config,
    sample: dict[str, Any],
    goal: Estimate,
    foreach: bool | None,
) -> Estimate:
    """Count real tensors at two small batches; go on along their line."""
    with DefaultScope.overwrite_default_scope(
        cfg.get('default_scope', 'mmmoco')
    ):
        model = MODELS.build(cfg.model)
    small = smallest_batch(model)
    low, high = (Estimate(goal.dtype, n, '') for n in (small, 2 * small))
    for part in (low, high):
        _simulate(cfg, model, sample, part, foreach)
    ratio = (goal.batch_size - low.batch_size) / (
        high.batch_size - low.batch_size
    )

    def line(a: int, b: int) -> int:
        return round(a + (b - a) * ratio)

    return Estimate(
        **{
            **asdict(high),
            'batch_size': goal.batch_size,
            'method': 'real tensors, extrapolated from batches of '
            f'{low.batch_size} and {high.batch_size}',
            'kept': line(low.kept, high.kept),
            'peaks': {
                phase: line(low.peaks[phase], high.peaks[phase])
                for phase in high.peaks
            },
        }
    )


def smallest_batch(model: nn.Module) -> int:
    """Return the smallest batch that every SplitBN can split, at least 2."""
    splits = [getattr(m, 'num_splits', 1) for m in model.modules()]
    smallest = math.lcm(*splits)
    # Each part needs two values for statistics.
    return 2 * smallest


def _simulate(
    cfg: Config,
    model: Any,
    sample: dict[str, Any],
    result: Estimate,
    foreach: bool | None,
) -> None:
    """Run two optimizer steps, counting; write what was found."""
    model.train()
    micro = min(cfg.optim_wrapper.get('accumulative_counts', 1), 2)
    wrapper = _optim_wrapper(cfg, model, micro, foreach)
    optimizer = wrapper.optimizer
    train_step = TrainStep(model, wrapper, 2 * micro)
    counter = LiveBytes()
    dictionary = [b for each in model.dictionaries for b in each.buffers()]
    result.trained = storage_bytes(
        p for p in model.parameters() if p.requires_grad
    )
    result.frozen = storage_bytes(model.parameters()) - result.trained
    result.dictionary = storage_bytes(dictionary)
    result.buffers = storage_bytes(model.buffers()) - result.dictionary
    counter.count([*model.parameters(), *model.buffers()])
    handles = _name_the_frozen_passes(model, counter)
    try:
        with counter:
            for step in range(2):
                if step == 1:
                    counter.reset_peak()
                for i in range(micro):
                    if i:
                        train_step.end(stepped=False, due=False)
                    train_step.begin()
                    _micro_step(model, sample, result, counter)
                result.gradients = storage_bytes(
                    p.grad for p in model.parameters() if p.grad is not None
                )
                with counter.during('optimizer'):
                    optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                # Writing them into the dictionary takes no memory of its own.
                model.discard_keys()
                with counter.during('key update'):
                    train_step.end(stepped=True)
    finally:
        for handle in handles:
            handle.remove()
    result.optimizer = storage_bytes(
        value
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    )
    result.peaks = {k: v for k, v in counter.peaks.items() if k}


def _micro_step(
    model: Any,
    sample: dict[str, Any],
    result: Estimate,
    counter: LiveBytes,
) -> None:
    """One forward and backward pass, as ``train_step`` does them."""
    device = next(model.parameters()).device.type
    dtype = DTYPES[result.dtype]
    autocast: AbstractContextManager[Any] = nullcontext()
    if dtype is not None:
        autocast = torch.autocast(device, dtype=dtype)
    before = counter.live
    with counter.during('forward'):
        data = sample_batch.like(sample, result.batch_size)
        with autocast:
            data = model.data_preprocessor(data, True)
            losses = model(**data, mode='loss')
            loss, _ = model.parse_losses(losses)
        del losses, _
    result.kept = counter.live - before
    with counter.during('backward'):
        loss.backward()


def _optim_wrapper(
    cfg: Config, model: nn.Module, micro: int, foreach: bool | None
) -> Any:
    settings = cfg.optim_wrapper.copy()
    settings.accumulative_counts = micro
    settings.pop('dtype', None)
    settings.pop('loss_scale', None)
    with DefaultScope.overwrite_default_scope(
        cfg.get('default_scope', 'mmmoco')
    ):
        wrapper = build_optim_wrapper(model, settings)
    if foreach is not None and 'foreach' in wrapper.optimizer.defaults:
        for group in wrapper.optimizer.param_groups:
            group['foreach'] = foreach
    return wrapper


def _name_the_frozen_passes(model: Any, counter: LiveBytes) -> list[Any]:
    """Let key encoder and teacher be phases of their own."""
    handles: list[Any] = []
    for module, phase in (
        (model.key_encoder, 'key pass'),
        (model.teacher, 'teacher pass'),
    ):
        if module is None:
            continue
        during: list[AbstractContextManager[None]] = []

        def enter(*_: Any, phase: str = phase, during: Any = during) -> None:
            during.append(counter.during(phase))
            during[-1].__enter__()

        def leave(*_: Any, during: Any = during) -> None:
            during.pop().__exit__(None, None, None)

        handles.append(module.register_forward_pre_hook(enter))
        handles.append(module.register_forward_hook(leave))
    return handles
