"""From a config and the machine to a runner that works there.

Several CPU processes, checkpoints that cannot run code.
"""

import os
import signal

import torch
import torch.distributed as torch_dist
from mmengine.config import Config, ConfigDict
from mmengine.dist import init_dist
from mmengine.registry import RUNNERS as ROOT_RUNNERS
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from mmmoco.apis.config.adapt import (
    complete_foreign,
    fit_workers,
    replace_sync_bn,
)
from mmmoco.engine.checkpoint_io import guarded
from mmmoco.engine.class_folders import hidden_skipped
from mmmoco.engine.endings import building
from mmmoco.engine.meeting import meet
from mmmoco.messages import log_warning
from mmmoco.registry import value_at


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
        options = value_at(cfg, 'env_cfg.dist_cfg') or {}
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
    if replace_sync_bn(list(cfg.values())):
        log_warning(
            'SyncBN needs GPUs: replaced by BN, whose statistics are those '
            'of each process.'
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


@guarded
@hidden_skipped
def build_runner(cfg: Config) -> Runner:
    """Build the runner; what its parts read meanwhile is read safely."""
    with building():
        complete_foreign(cfg)
        fit_workers(cfg)
        scope = cfg.get('default_scope', 'mmmoco')
        init_default_scope(scope)
        cfg.setdefault('runner_type', 'mmmoco.ContrastRunner')
        try:
            os.makedirs(cfg.work_dir, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f'--work-dir {cfg.work_dir!r} cannot be made '
                f'({error.strerror}); take another one.'
            ) from error
        runner: Runner = ROOT_RUNNERS.build(cfg)
    return runner
