"""Testing: the job behind ``tools/test.py``."""

import argparse
import os
from collections.abc import Sequence

from mmmoco.apis import cli
from mmmoco.apis.config.files import load_config, resolve_config
from mmmoco.apis.training.runner import build_runner, init_processes
from mmmoco.apis.training.train import LAUNCHERS

from .knn import report_knn


def parser() -> argparse.ArgumentParser:
    """Return the command line of ``tools/test.py``."""
    result = argparse.ArgumentParser(
        prog='test.py',
        description='Test a checkpoint: k-NN for pre-training configs, the '
        'test loop of the config for mmpretrain, mmdet and mmseg.',
    )
    result.add_argument('config', help='path, name, or package::path')
    result.add_argument('checkpoint', help='file to test')
    result.add_argument('--work-dir', help='for logs and results')
    cli.add_cfg_options(result)
    result.add_argument('--launcher', choices=LAUNCHERS, default='none')
    result.add_argument(
        '--local_rank', '--local-rank', type=int, help=argparse.SUPPRESS
    )
    cli.add_debug(result)
    return result


def test(args: argparse.Namespace) -> None:
    """Test as the command line says.

    Raises:
        FileNotFoundError: If config or checkpoint do not exist.
        ValueError: If the config has neither a test loop nor ``knn``.
    """
    cfg = load_config(args.config, args.cfg_options)
    cli.require_file(args.checkpoint)
    if cfg.get('test_dataloader') is None:
        if 'knn' not in cfg:
            raise ValueError(
                f'{args.config!r} has neither test_dataloader nor knn: '
                'there is nothing to test.'
            )
        init_processes(cfg, args.launcher, with_runner=False)
        report_knn(cfg, args.checkpoint, work_dir=args.work_dir)
        return
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank or 0))
    name = resolve_config(args.config).stem
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or f'work_dirs/{name}'
    cfg.load_from = args.checkpoint
    init_processes(cfg, args.launcher)
    build_runner(cfg).test()


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``tools/test.py``."""
    args = parser().parse_args(argv)
    cli.run(lambda: test(args), 'test.py', args.debug)
