"""Training: the job behind ``tools/train.py``."""

import argparse
import logging
import os
from collections.abc import Sequence

from mmengine.config import Config
from mmengine.logging import print_log

from mmmoco.apis import cli
from mmmoco.apis.config.adapt import (
    limit_iterations,
    out_dir_of,
    use_precision,
)
from mmmoco.apis.config.files import load_config, resolve_config
from mmmoco.apis.config.image_range import settle_for_training
from mmmoco.apis.config.initialization import initialize
from mmmoco.apis.training.runner import build_runner, init_processes
from mmmoco.engine import checkpoint_io
from mmmoco.engine.preemption import why_started_again

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')


def parser() -> argparse.ArgumentParser:
    """Return the command line of ``tools/train.py``."""
    result = argparse.ArgumentParser(
        prog='train.py',
        description='Train: pre-training configs of mmmoco, and configs of '
        'mmpretrain, mmdet and mmseg.',
        epilog='Example: python tools/train.py configs/mocov2_r50_8xb32.py '
        '--cfg-options train_dataloader.dataset.data_root=/my/images',
    )
    result.add_argument(
        'config', help='path, name (mocov2_r50_8xb32), or package::path'
    )
    result.add_argument(
        '--work-dir', help='for logs and checkpoints (work_dirs/CONFIG)'
    )
    result.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CKPT',
        help='continue from CKPT, or from the newest readable checkpoint of '
        'the work dir',
    )
    result.add_argument(
        '--overwrite',
        action='store_true',
        help='start anew in a used work dir: remove its numbered '
        'checkpoints; with --resume CKPT only those that are later',
    )
    result.add_argument(
        '--load-from', metavar='CKPT', help='start from the weights of CKPT'
    )
    result.add_argument(
        '--init',
        metavar='CKPT|supervised|random',
        help='what the pre-trained parts of a downstream model start from: a '
        'checkpoint (from training or exported), the weights of torchvision, '
        'or none',
    )
    result.add_argument(
        '--allow-partial',
        action='store_true',
        help='start although the weights of --load-from, --init or an '
        'init_cfg do not fill the network; what stays random is named',
    )
    result.add_argument(
        '--max-iters',
        type=int,
        metavar='N',
        help='train N iterations; the schedule is fitted to them',
    )
    result.add_argument(
        '--schedule',
        choices=('keep', 'fit'),
        help='where the schedule and the run have different lengths: keep '
        'it, or stretch it to the run',
    )
    result.add_argument(
        '--fast',
        action='store_true',
        help='channels_last, bfloat16 mixed precision where the hardware '
        'has units for it, on CPUs freed memory kept, on GPUs TF32',
    )
    result.add_argument(
        '--amp', action='store_true', help='bfloat16 mixed precision'
    )
    result.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale lr by the effective batch (accumulation included)',
    )
    result.add_argument(
        '--seed', type=int, help='seed of the run (drawn and logged if absent)'
    )
    result.add_argument(
        '--cfg-options',
        nargs='+',
        action=cli.CfgOptions,
        metavar='KEY=VALUE',
        help='override settings of the config',
    )
    result.add_argument(
        '--launcher', choices=LAUNCHERS, default='none', help='job launcher'
    )
    result.add_argument(
        '--local_rank', '--local-rank', type=int, help=argparse.SUPPRESS
    )
    cli.add_debug(result)
    return result


def prepare(args: argparse.Namespace) -> Config:
    """Turn a command line into a complete config.

    Raises:
        FileNotFoundError: If config or checkpoint do not exist.
        ValueError: If options contradict each other.
    """
    cfg = load_config(args.config, args.cfg_options)
    name = resolve_config(args.config).stem
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or f'work_dirs/{name}'
    if not cfg.work_dir.isprintable():
        raise ValueError(
            f'--work-dir {cfg.work_dir!a}: the name is not valid UTF-8, '
            'or holds characters that cannot be shown; take another one.'
        )
    if os.path.exists(cfg.work_dir) and not os.path.isdir(cfg.work_dir):
        raise ValueError(
            f'--work-dir {cfg.work_dir!r} is no folder; take another one.'
        )
    if args.seed is not None:
        if not 0 <= args.seed < 2**32:
            raise ValueError(
                f'--seed {args.seed}: it has to be a whole number from 0 to '
                f'{2**32 - 1}.'
            )
        cfg.randomness = {**cfg.get('randomness', {}), 'seed': args.seed}
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise ValueError(
                '--auto-scale-lr: the config does not say which batch its lr '
                'is meant for; add auto_scale_lr=dict(base_batch_size=256).'
            )
        cfg.auto_scale_lr.enable = True
    if args.schedule:
        cfg.schedule = args.schedule
    use_precision(cfg, args.amp, args.fast)
    if args.max_iters is not None:
        limit_iterations(cfg, args.max_iters)
    if args.allow_partial:
        cfg.allow_partial = True
    cfg.overwrite = args.overwrite
    _choose_checkpoint(cfg, args)
    if args.init:
        initialize(cfg, args.init)
    return cfg


def _choose_checkpoint(cfg: Config, args: argparse.Namespace) -> None:
    again = why_started_again(cfg.work_dir, args.overwrite)
    if again and checkpoint_io.any_numbered(cfg.work_dir, out_dir_of(cfg)):
        # The same command, given again by a scheduler: --load-from and the
        # path of --resume were for the first time.
        print_log(
            f'{again}: it goes on from its newest checkpoint. To start '
            'afresh, take another --work-dir, or empty this one.',
            logger='current',
            level=logging.WARNING,
        )
        cfg.resume, cfg.load_from = True, None
        return
    resume = '--resume' if args.resume else 'resume=True of the config'
    goes_on = args.resume or cfg.get('resume')
    if goes_on and args.overwrite and args.resume in (None, 'auto'):
        raise ValueError(
            f'{resume} goes on with the run in the work dir, --overwrite '
            'removes it: give one of them. (With --resume CKPT, --overwrite '
            'removes what is later than CKPT.)'
        )
    if goes_on and args.load_from:
        raise ValueError(
            f'{resume} continues a run, --load-from starts a new one from '
            'weights: give one of them.'
        )
    if args.init and args.load_from:
        raise ValueError(
            '--load-from overwrites the whole model, what --init loads too: '
            'give one of them.'
        )
    path = args.load_from
    if args.resume:
        cfg.resume = True
        path = args.resume
        if path == 'auto':
            # The runner looks for the newest readable checkpoint, and starts
            # anew if there is none: jobs can always be started so.
            path = cfg.load_from = None
    if path:
        if '://' not in path:
            cli.require_file(path)
        cfg.load_from = str(path)


def train(args: argparse.Namespace) -> None:
    """Train as the command line says."""
    if 'LOCAL_RANK' not in os.environ:
        os.environ['LOCAL_RANK'] = str(args.local_rank or 0)
    cfg = prepare(args)
    init_processes(cfg, args.launcher)
    settle_for_training(cfg)
    runner = build_runner(cfg)
    if args.init:
        print_log(f'Initialised: {cfg.initialization}.', logger='current')
    runner.train()


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``tools/train.py``."""
    args = parser().parse_args(argv)
    cli.run(lambda: train(args), 'train.py', args.debug)
