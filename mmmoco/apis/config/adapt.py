"""Every change of a config before a runner exists.

Mixed precision on a CPU, short runs, data workers, foreign configs.
"""

import os
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device

from mmmoco.engine.schedule import end_of
from mmmoco.messages import log_info, log_warning
from mmmoco.older_versions import gpu_has_bfloat16
from mmmoco.private_names import cpu_has_bfloat16
from mmmoco.registry import DATASETS, MODELS, bare_type, dicts_in, value_at
from mmmoco.system import cores
from mmmoco.two_phase import TwoPhaseModel

_WITH_LOADERS = (
    *('train_dataloader', 'val_dataloader', 'test_dataloader'),
    *('knn', 'custom_hooks'),
)

#: Hooks that evaluate while a run trains.
EVALUATING = ('KNNHook', 'EvaluationHook')


def replace_sync_bn(node: Any, replacement: str = 'BN') -> bool:
    """Turn every SyncBN of a config into BN; tell whether there was one.

    SyncBN takes N×C as well as N×C×H×W, BN does not: in the heads, which see
    vectors, BN1d takes its place.
    """
    found = False
    below = node if isinstance(node, list | tuple) else ()
    if isinstance(node, dict):
        below = list(node.values())
        kind = bare_type(node)
        if kind == 'SyncBN':
            node['type'] = replacement
            found = True
        elif kind in ('NonLinearNeck', 'LinearNeck'):
            replacement = 'BN1d'
        elif 'type' in node:
            replacement = 'BN'
    for value in below:
        found = replace_sync_bn(value, replacement) or found
    return found


def use_precision(cfg: Config, amp: bool, fast: bool) -> None:
    """Apply ``--amp`` and ``--fast``, and what a CPU needs.

    Where the hardware has no units for bfloat16, only ``--amp`` takes it.

    Args:
        cfg: Config to change.
        amp: bfloat16 mixed precision.
        fast: The channels_last memory format, `KernelSettingsHook`, and
            ``amp`` where the hardware has units for it.
    """
    wrapper = cfg.get('optim_wrapper')
    if wrapper is None:
        return
    on_cpu = not torch.cuda.is_available()
    slow_bf16 = not has_bfloat16_units()
    here = 'CPU' if on_cpu else 'GPU'
    kind, dtype = bare_type(wrapper), wrapper.get('dtype')
    needs_gpu = kind == 'AmpOptimWrapper' or dtype == 'float16'
    plain = ''
    if amp or needs_gpu or dtype == 'bfloat16':
        if get_device() == 'mps':  # Nor has mmengine any there.
            plain = 'No mixed precision on GPUs of Apple'
            amp = False
        elif slow_bf16 and not amp and (on_cpu or dtype == 'bfloat16'):
            plain = f'This {here} has no bfloat16 units'
    if plain:
        wrapper.type = 'mmmoco.ContrastOptimWrapper'
        wrapper.dtype = 'float32'
        wrapper.pop('loss_scale', None)
        log_warning(f'{plain}: using float32.')
    elif fast and slow_bf16 and not amp:
        log_info(
            f'--fast: this {here} has no bfloat16 units; the precision stays.'
        )
    elif amp or fast or (on_cpu and needs_gpu):
        wrapper.type = 'mmmoco.ContrastOptimWrapper'
        wrapper.dtype = 'bfloat16'
        wrapper.pop('loss_scale', None)
    if amp and slow_bf16:
        log_warning(
            f'This {here} has no bfloat16 units: mixed precision will be '
            'slower than float32 here.'
        )
    elif on_cpu and needs_gpu and not plain:
        log_warning(
            'The config asks for float16, which needs a GPU: using bfloat16.'
        )
    if fast and method_class(cfg.model.get('type')) is not None:
        cfg.model.channels_last = True
    if fast:
        cfg.setdefault('custom_hooks', []).append(
            ConfigDict(type='mmmoco.KernelSettingsHook')
        )


def has_bfloat16_units() -> bool:
    """Whether the hardware computes in bfloat16, and does not emulate it."""
    if torch.cuda.is_available():
        return gpu_has_bfloat16()
    return cpu_has_bfloat16()


def limit_iterations(cfg: Config, max_iters: int) -> None:
    """Make a run of ``max_iters`` iterations, whatever loop it had.

    Loop, logging, saving and validation switch together; the schedules are
    fitted to the new length, unless the config keeps them.

    Args:
        cfg: Config to change.
        max_iters: Number of iterations.

    Raises:
        ValueError: If it is not positive.
    """
    if max_iters < 1:
        raise ValueError(f'--max-iters {max_iters}: must be at least 1.')
    loop = cfg.get('train_cfg') or ConfigDict()
    length = loop.get('max_epochs') or loop.get('max_iters')
    cfg.train_cfg = ConfigDict(
        type='IterBasedTrainLoop', max_iters=max_iters, val_interval=max_iters
    )
    cfg.setdefault('log_processor', ConfigDict()).by_epoch = False
    hooks = cfg.setdefault('default_hooks', ConfigDict())
    checkpoint = hooks.setdefault(
        'checkpoint', ConfigDict(type='mmmoco.ContrastCheckpointHook')
    )
    checkpoint.by_epoch = False
    checkpoint.interval = max_iters
    logger = hooks.setdefault('logger', ConfigDict(type='LoggerHook'))
    logger.interval = max(1, min(logger.get('interval', 10), max_iters // 5))
    for hook in cfg.get('custom_hooks') or []:
        if bare_type(hook) in EVALUATING:
            hook.interval = max_iters
        elif bare_type(hook) == 'DropGuardHook':
            hook.interval = -(-max_iters // 10)
        elif bare_type(hook) == 'HeadWarmupHook':
            hook.iterations = min(hook.iterations, max_iters // 2)
    sampler = cfg.train_dataloader.get('sampler') or ConfigDict()
    if bare_type(sampler) == 'AddressedSampler':
        sampler.infinite = True
    schedules: Any = cfg.get('param_scheduler') or []
    if isinstance(schedules, dict):
        schedules = [schedules]
    for schedule in schedules:
        alike = schedule.get('by_epoch', True) == ('max_epochs' in loop)
        if length and alike and end_of(schedule) is None:
            schedule.end = length
    if cfg.get('schedule') is None:
        cfg.schedule = 'fit'


def out_dir_of(cfg: Config) -> str | None:
    """Return where a config wants its checkpoints, if elsewhere."""
    place: str | None = value_at(cfg, 'default_hooks.checkpoint.out_dir')
    return place


def complete_foreign(cfg: Config) -> None:
    """Save, stop and go on as our own runs do.

    And what mmpretrain's train script adds.
    """
    hooks = cfg.get('default_hooks') or ConfigDict()
    checkpoint = hooks.setdefault('checkpoint', ConfigDict())
    if checkpoint is not None and bare_type(checkpoint) in (
        '',
        'CheckpointHook',
    ):
        checkpoint.type = 'mmmoco.ContrastCheckpointHook'
    cfg.default_hooks = hooks
    if method_class(value_at(cfg, 'model.type')) is None:
        own = list(cfg.get('custom_hooks') or [])
        known = {bare_type(hook) for hook in own if isinstance(hook, dict)}
        for kind in ('AddressedRandomnessHook', 'PreemptionHook'):
            if kind not in known:
                own.append(ConfigDict(type=f'mmmoco.{kind}'))
        cfg.custom_hooks = own
    if cfg.get('default_scope') != 'mmpretrain':
        return
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        if cfg.get(name):
            cfg[name].setdefault('collate_fn', dict(type='default_collate'))


def fit_workers(cfg: Config) -> None:
    """Start no more data workers than there are cores for this process.

    ``num_workers='auto'``, which the configs of data sets say, means as many
    as there are cores, up to 32; for a stream of shards, whose order depends
    on their number, up to 8. ``num_workers=0`` works also in configs that
    keep workers alive. The loaders of hooks count too.

    Args:
        cfg: Config to change.
    """
    processes = int(os.environ.get('LOCAL_WORLD_SIZE', '1'))
    own = max(1, cores() // processes)
    most = chosen = 0
    for loader in dicts_in([cfg.get(place) for place in _WITH_LOADERS]):
        if not {'num_workers', 'persistent_workers'} & loader.keys():
            continue
        wanted = loader.get('num_workers', 0)
        if wanted == 'auto':
            kind = DATASETS.get(value_at(loader, 'dataset.type') or '')
            wanted = min(own, 8 if getattr(kind, 'is_stream', False) else 32)
            chosen = max(chosen, wanted)
        most = max(most, wanted)
        loader['num_workers'] = min(wanted, own)
        if loader['num_workers'] == 0:
            loader['persistent_workers'] = False
    if chosen:
        log_info(
            f"{chosen} data workers (num_workers='auto': this process has "
            f'{own} cores).'
        )
    if most > own:
        log_info(
            f'{own} data workers instead of {most}: this process has no '
            'more cores.'
        )


def method_class(name: object) -> type[TwoPhaseModel] | None:
    """Return the class of a method, such as ``'MoCoV2'``.

    Args:
        name: As in a config; a file may say anything, and nothing is
            imported by it.

    Returns:
        None if the registry of mmmoco has no pre-training method by it.
    """
    MODELS.import_from_location()
    if isinstance(name, str):
        name = MODELS.module_dict.get(name.removeprefix('mmmoco.'))
    if isinstance(name, type) and issubclass(name, TwoPhaseModel):
        return name
    return None
