"""From a config and the machine to a runner that works there.

Everything that mmengine's own entry points leave to the user: several CPU
processes, mixed precision on a CPU, short runs, checkpoints that cannot run
code.
"""

import logging
import os
import signal
from typing import Any

import torch
import torch.distributed as torch_dist
from mmengine.config import Config, ConfigDict
from mmengine.dist import init_dist
from mmengine.logging import print_log
from mmengine.registry import RUNNERS as ROOT_RUNNERS
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from mmmoco.datasets.class_folders import skip_hidden
from mmmoco.engine import checkpoint_io
from mmmoco.engine.endings import building
from mmmoco.engine.meeting import meet
from mmmoco.engine.schedule import end_of
from mmmoco.registry import DATASETS, bare_type


def init_processes(
    cfg: Config, launcher: str, with_runner: bool = True
) -> None:
    """Join the other processes, over gloo where there is no GPU.

    Args:
        cfg: Config to change.
        launcher: As for mmengine.
        with_runner: A Runner follows, which does the rest on GPUs.
    """
    cfg.launcher = launcher
    if launcher == 'none':
        return
    # tools/dist_train.sh lets torchrun ignore these, not its processes.
    for number, action in (
        (signal.SIGTERM, signal.SIG_DFL),
        (signal.SIGINT, signal.default_int_handler),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, action)
    if torch.cuda.is_available():
        _require_gpus()
        options = (cfg.get('env_cfg') or {}).get('dist_cfg') or {}
        if launcher == 'pytorch':
            init_dist(launcher, **options, **meet())
        elif not with_runner:
            init_dist(launcher)
        return
    if launcher != 'pytorch':
        raise ValueError(
            f'--launcher {launcher} needs GPUs; several CPU processes start '
            'with tools/dist_train.sh (--launcher pytorch).'
        )
    # mmengine would first ask for a CUDA device.
    torch_dist.init_process_group('gloo', **meet())
    cfg.setdefault('env_cfg', ConfigDict()).dist_cfg = dict(backend='gloo')
    cfg.model_wrapper_cfg = dict(
        type='MMDistributedDataParallel',
        device_ids=None,
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
    )
    if _replace_sync_bn(cfg._cfg_dict):
        print_log(
            'SyncBN needs GPUs: replaced by BN, whose statistics are those '
            'of each process.',
            logger='current',
            level=logging.WARNING,
        )


def _require_gpus() -> None:
    """See that every process of this machine has a GPU of its own.

    Raises:
        ValueError: If torchrun started more processes than there are GPUs.
    """
    processes = int(os.environ.get('LOCAL_WORLD_SIZE', '1'))
    gpus = torch.cuda.device_count()
    if processes > gpus:
        visible = os.environ.get('CUDA_VISIBLE_DEVICES')
        raise ValueError(
            f'{processes} processes on this machine, which shows {gpus} '
            f'GPU(s) (CUDA_VISIBLE_DEVICES={visible}): start at most {gpus}.'
        )


def _replace_sync_bn(node: Any, replacement: str = 'BN') -> bool:
    """Turn every SyncBN of a config into BN; tell whether there was one.

    SyncBN takes N×C as well as N×C×H×W, BN does not: in the heads, which see
    vectors, BN1d takes its place.
    """
    found = False
    if isinstance(node, dict):
        kind = bare_type(node)
        if kind == 'SyncBN':
            node['type'] = replacement
            found = True
        elif kind in ('NonLinearNeck', 'LinearNeck'):
            replacement = 'BN1d'
        elif 'type' in node:
            replacement = 'BN'
        for value in node.values():
            found = _replace_sync_bn(value, replacement) or found
    elif isinstance(node, list | tuple):
        for value in node:
            found = _replace_sync_bn(value, replacement) or found
    return found


def use_precision(cfg: Config, amp: bool, fast: bool) -> None:
    """Apply ``--amp`` and ``--fast``, and what a CPU needs.

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
    kind = bare_type(wrapper)
    needs_gpu = kind == 'AmpOptimWrapper' or wrapper.get('dtype') == 'float16'
    if fast and slow_bf16 and not amp:
        print_log(
            f'--fast: this {here} has no bfloat16 units; the precision stays.',
            logger='current',
        )
    if amp or (fast and not slow_bf16) or (on_cpu and needs_gpu):
        wrapper.type = 'mmmoco.ContrastOptimWrapper'
        wrapper.dtype = 'bfloat16'
        wrapper.pop('loss_scale', None)
    if amp and slow_bf16:
        print_log(
            f'This {here} has no bfloat16 units: mixed precision will be '
            'slower than float32 here.',
            logger='current',
            level=logging.WARNING,
        )
    elif on_cpu and needs_gpu:
        print_log(
            'The config asks for float16, which needs a GPU: using bfloat16.',
            logger='current',
            level=logging.WARNING,
        )
    if fast and 'dictionary' in cfg.model:
        cfg.model.channels_last = True
    if fast:
        cfg.setdefault('custom_hooks', []).append(
            ConfigDict(type='mmmoco.KernelSettingsHook')
        )


def has_bfloat16_units() -> bool:
    """Whether the hardware computes in bfloat16, and does not emulate it."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported())


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
        if bare_type(hook) == 'KNNHook':
            hook.interval = max_iters
    sampler = cfg.train_dataloader.get('sampler') or ConfigDict()
    if bare_type(sampler) == 'AddressedSampler':
        sampler.infinite = True
    for schedule in _as_list(cfg.get('param_scheduler')):
        alike = schedule.get('by_epoch', True) == ('max_epochs' in loop)
        if length and alike and end_of(schedule) is None:
            schedule.end = length
    if cfg.get('schedule') is None:
        cfg.schedule = 'fit'


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


def out_dir_of(cfg: Config) -> str | None:
    """Return where a config wants its checkpoints, if elsewhere."""
    saver = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    place: str | None = saver.get('out_dir')
    return place


def complete_foreign(cfg: Config) -> None:
    """Save as our own runs do; add what mmpretrain's train script adds."""
    checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint')
    if checkpoint and checkpoint.get('type') == 'CheckpointHook':
        checkpoint.type = 'mmmoco.ContrastCheckpointHook'
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
    keep workers alive.

    Args:
        cfg: Config to change.
    """
    processes = int(os.environ.get('LOCAL_WORLD_SIZE', '1'))
    cores = max(1, len(os.sched_getaffinity(0)) // processes)
    knn = cfg.get('knn') or ConfigDict()
    loaders = [cfg.get(f'{x}_dataloader') for x in ('train', 'val', 'test')]
    most = chosen = 0
    for loader in [*loaders, knn.get('bank'), knn.get('query')]:
        if not loader:
            continue
        wanted = loader.get('num_workers', 0)
        if wanted == 'auto':
            kind = DATASETS.get((loader.get('dataset') or {}).get('type', ''))
            wanted = min(cores, 8 if hasattr(kind, 'is_stream') else 32)
            chosen = max(chosen, wanted)
        most = max(most, wanted)
        loader.num_workers = min(wanted, cores)
        if loader.num_workers == 0:
            loader.persistent_workers = False
    if chosen:
        print_log(
            f"{chosen} data workers (num_workers='auto': this process has "
            f'{cores} cores).',
            logger='current',
        )
    if most > cores:
        print_log(
            f'{cores} data workers instead of {most}: this process has no '
            'more cores.',
            logger='current',
        )


def build_runner(cfg: Config) -> Runner:
    """Build the runner; every checkpoint is then read and written safely."""
    checkpoint_io.install()
    skip_hidden()
    with building():
        complete_foreign(cfg)
        fit_workers(cfg)
        scope = cfg.get('default_scope', 'mmmoco')
        init_default_scope(scope)
        cfg.setdefault('runner_type', 'mmmoco.ContrastRunner')
        os.makedirs(cfg.work_dir, exist_ok=True)
        runner: Runner = ROOT_RUNNERS.build(cfg)
    return runner
