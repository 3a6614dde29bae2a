"""Pre-flight check of a config."""

import logging
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from logging.handlers import MemoryHandler
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import MMLogger

from mmmoco.apis.config.adapt import (
    EVALUATING,
    fit_workers,
    limit_iterations,
    use_precision,
)
from mmmoco.apis.training.runner import build_runner
from mmmoco.engine.batch_checks import check_samples, check_splits
from mmmoco.engine.class_folders import hidden_skipped
from mmmoco.engine.evaluation import build_evaluation
from mmmoco.engine.groups import describe_groups
from mmmoco.engine.hooks.step_watch_hook import StepWatchHook
from mmmoco.engine.scaled_momentum import batch_of_m
from mmmoco.engine.without_memory import build_without_memory
from mmmoco.messages import few
from mmmoco.registry import bare_type, in_scope_of
from mmmoco.two_phase import TwoPhaseModel

from . import sample_batch
from .memory_estimate import check_config, smallest_batch

OK, WARNING, ERROR = 'ok', 'warning', 'ERROR'

#: Hooks that one iteration has no use for.
_OF_LONGER_RUNS = (
    *EVALUATING,
    *('DropGuardHook', 'FillQueueHook', 'HeadWarmupHook'),
)


@dataclass(frozen=True)
class Check:
    """One row of the report.

    Attributes:
        name: What was looked at.
        value: What was found.
        verdict: ``'ok'``, ``'warning'`` or ``'ERROR'``.
    """

    name: str
    value: str
    verdict: str = OK


def verify(
    cfg: Config, processes: int = 1, debug: bool = False
) -> list[Check]:
    """Check a pre-training config, up to one real step of a tiny batch.

    Args:
        cfg: Config of the run.
        processes: That the run is meant for.
        debug: Let exceptions through.

    Returns:
        What was checked; later checks are left out after one that they
        need has failed.

    Raises:
        ValueError: If it is no config of pre-training.
    """
    check_config(cfg)
    checks: list[Check] = []
    MMLogger.get_instance('verify_config', log_level='ERROR')
    try:
        use_precision(cfg, amp=False, fast=False)
        fit_workers(cfg)
        model: Any = build_without_memory(cfg)
        checks += _model(model)
        dataset, missing = sample_batch.open_dataset(cfg)
        length = 0 if dataset is None else len(dataset)
        checks.append(_data(dataset, missing, length))
        if model.wants_groups and dataset is not None:
            checks.append(Check('groups', describe_groups(dataset)))
        checks += _batch(cfg, model, length, processes)
        checks += _knn(cfg)
        checks += _step(cfg, model, length, processes)
    except Exception as error:
        if debug:
            raise
        text = ' '.join(str(error).split()) or type(error).__name__
        done = 'the step' if len(checks) > 1 else 'building'
        checks.append(Check(done, text, ERROR))
    return checks


def _attempt(
    name: str, check: Callable[..., str | None], *args: Any
) -> list[Check]:
    """Turn what a guard raises or returns into a row."""
    try:
        warning = check(*args)
    except ValueError as error:
        return [Check(name, str(error), ERROR)]
    return [Check(name, warning, WARNING)] if warning else []


def _model(model: Any) -> Iterator[Check]:
    if not isinstance(model, TwoPhaseModel):
        raise TypeError(
            f'model.type={type(model).__name__} is no pre-training model of '
            'mmmoco.'
        )
    count = {True: 0, False: 0}
    for parameter in model.parameters():
        count[parameter.requires_grad] += parameter.numel()
    yield Check(
        'model',
        f'{type(model).__name__}, {count[True]:,} parameters learn, '
        f'{count[False]:,} do not',
        OK if count[True] else ERROR,
    )
    if model.key_encoder is not None:
        first, last = model.momentum_at(0.0), model.momentum_at(1.0)
        yield Check('m', f'{first:g} at the start, {last:g} at the end')
    temperature = getattr(model.contrast, 'temperature', 0)
    if temperature:
        yield Check('temperature', f'{temperature:g}')


def _data(dataset: Any, missing: str, length: int) -> Check:
    if dataset is None:
        said = f'{missing} Synthetic images stand in for it below.'
        return Check('data set', said, WARNING)
    return Check('data set', f'{type(dataset).__name__}, {length:,} images')


def _batch(
    cfg: Config, model: Any, length: int, processes: int
) -> Iterator[Check]:
    """The batch of the run itself, not of the tiny step."""
    loader = cfg.train_dataloader
    batch = int(loader.batch_size)
    accumulation = int(cfg.optim_wrapper.get('accumulative_counts', 1))
    effective = batch * processes * accumulation
    text = (
        f'{effective} = {batch} x {processes} processes x {accumulation} '
        'accumulation'
    )
    scaling = cfg.get('auto_scale_lr') or {}
    base, verdict = scaling.get('base_batch_size'), OK
    lr = float(cfg.optim_wrapper.optimizer.lr)
    if scaling.get('enable') and base:
        text += f'; lr {lr:g} for {base} becomes {lr * effective / base:g}'
    elif base and base != effective:
        text += f'; but lr {lr:g} is meant for {base} (--gpus, batch_size)'
        verdict = WARNING
    else:
        text += f'; lr {lr:g}'
    if (cfg.get('auto_scale_m') or {}).get('enable'):
        text += f'; m to the power {effective / batch_of_m(cfg):g}'
    yield Check('effective batch', text, verdict)
    yield from _attempt('SplitBN', check_splits, model, batch)
    if length:
        numbers = (length, batch, processes, accumulation)
        drop_last = bool(loader.get('drop_last', False))
        yield from _attempt(
            'data set and batch', check_samples, *numbers, drop_last
        )
    keys = effective * model.keys_per_image
    for dictionary in model.dictionaries:
        found = _attempt('dictionary', dictionary.check, keys, length)
        text = f'{type(dictionary).__name__}, {keys} keys a step'
        if hasattr(dictionary, 'size'):
            text += f', {dictionary.size} entries'
        yield from found or [Check('dictionary', text)]


def _knn(cfg: Config) -> Iterator[Check]:
    """Whether the k-NN evaluation has its data, and labels that fit."""
    if not cfg.get('knn'):
        return
    try:
        with hidden_skipped, in_scope_of(cfg):
            evaluation, data = build_evaluation('KNN', cfg.knn, seed=0)
    except (FileNotFoundError, ValueError) as error:
        no_data = isinstance(error, FileNotFoundError)
        yield Check('k-NN', str(error), WARNING if no_data else ERROR)
        return
    found = evaluation.describe(data)
    yield Check(
        'k-NN',
        f'k={found["k"]}, {found["bank"]:,} images in the bank, '
        f'{found["queries"]:,} queries',
    )
    matching = data.matching
    yield Check(
        'k-NN labels', matching.text, WARNING if matching.differ else OK
    )


def _step(
    cfg: Config, model: Any, length: int, processes: int
) -> Iterator[Check]:
    """Run one iteration in the real runner, with all hooks but k-NN."""
    batch = max(4, smallest_batch(model))
    probe = StepWatchHook()
    with tempfile.TemporaryDirectory() as folder:
        tiny = _cut(cfg, batch, Path(folder), synthetic=not length)
        runner = build_runner(tiny)
        runner.register_hook(probe, priority='HIGHEST')
        # Never full, so that it keeps what is logged.
        log = MemoryHandler(10**6, flushLevel=logging.CRITICAL + 1)
        log.setLevel(logging.WARNING)
        runner.logger.addHandler(log)
        start = time.perf_counter()
        runner.train()
        seconds = time.perf_counter() - start
        loader = runner.train_dataloader
        dtype = tiny.optim_wrapper.get('dtype', 'float32')
    needs = ', '.join(sorted(model.needs)) or 'none'
    yield Check('hooks', f'needed: {needs}; all there')
    yield Check(
        'one step',
        f'batch {batch}, {dtype}, loss {probe.loss:.4f}, {seconds:.1f} s',
        OK if math.isfinite(probe.loss) and probe.stepped else ERROR,
    )
    yield _gradients(probe, bool(cfg.get('find_unused_parameters')))
    yield from _moves(model, probe, batch)
    known = model.check_keys(batch, len(loader.dataset))
    warnings = (' '.join(r.getMessage().split()) for r in log.buffer)
    for text in dict.fromkeys(warnings):
        # What is wrong on one process only is no matter on several.
        alone = processes > 1 and 'On one process' in text
        if text not in known and not alone:
            yield Check('logged', text, WARNING)


def _gradients(probe: StepWatchHook, unused_allowed: bool) -> Check:
    missing = probe.without_gradient
    if not missing:
        return Check('gradients', f'reach all {len(probe.trained)} tensors')
    return Check(
        'gradients',
        f'{len(missing)} of {len(probe.trained)} trainable tensors get none: '
        f'{few(missing)}. Several processes need find_unused_parameters=True, '
        'or these frozen.',
        WARNING if unused_allowed else ERROR,
    )


def _moves(model: Any, probe: StepWatchHook, batch: int) -> Iterator[Check]:
    """Who moved when: phase two belongs to the hooks."""
    for name in probe.early:
        yield Check(name, 'changed during the step, not in its hook', ERROR)
    if model.key_encoder is not None:
        text = f'updated {probe.updates} time(s), by its hook'
        if not probe.key_moved:
            text += '; the first step is too small to be seen in it'
        yield Check('key encoder', text, OK if probe.updates == 1 else ERROR)
    if model.frozen_teacher is not None:
        text = 'moved' if probe.teacher_moved else 'frozen, did not move'
        yield Check('teacher', text, ERROR if probe.teacher_moved else OK)
    if any(dictionary.has_state for dictionary in model.dictionaries):
        yield Check(
            'dictionary after it',
            f'{probe.entries} entries written by {batch} images',
            OK if 0 < probe.entries <= batch * model.keys_per_image else ERROR,
        )


def _cut(cfg: Config, batch: int, folder: Path, synthetic: bool) -> Config:
    """Return the config of one iteration, writing to ``folder`` only."""
    tiny = Config(cfg.to_dict())
    limit_iterations(tiny, 1)
    loader = tiny.train_dataloader
    loader.update(batch_size=batch, num_workers=0)
    for name in ('persistent_workers', 'prefetch_factor', 'pin_memory'):
        loader.pop(name, None)
    if synthetic:
        images = folder / 'images'
        loader.dataset = ConfigDict(
            sample_batch.synthetic_dataset(cfg, batch, images)
        )
    tiny.optim_wrapper.pop('accumulative_counts', None)
    tiny.update(
        work_dir=str(folder / 'run'),
        experiment_name=f'verify_{time.time_ns()}',
        log_level='ERROR',
        launcher='none',
        load_from=None,
        resume=False,
        auto_scale_lr=None,
    )
    # Judged above with the real batch, or of no use in one iteration.
    tiny.default_hooks.pop('guard', None)
    tiny.default_hooks.checkpoint = None
    tiny.custom_hooks = [
        hook
        for hook in tiny.get('custom_hooks') or []
        if bare_type(hook) not in _OF_LONGER_RUNS
    ]
    return tiny
