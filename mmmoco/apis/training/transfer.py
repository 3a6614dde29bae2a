"""Fine-tune, test, record: the job behind ``tools/transfer.sh``."""

import argparse
import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from numbers import Real
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.fileio import load
from mmengine.logging import print_log

from mmmoco.apis import cli
from mmmoco.apis.config.files import config_root
from mmmoco.apis.exchange.export_backbone import method_of
from mmmoco.apis.training.runner import build_runner, init_processes
from mmmoco.engine import checkpoint_io
from mmmoco.engine.results import append_result, figures_text, file_hash
from mmmoco.registry import dicts_in

from . import train

WITHOUT_FILE = ('supervised', 'random')
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
EVALUATORS = ('val_evaluator', 'test_evaluator')

#: Options that a result depends on; a work dir is for one set of them.
LEARNT = ('auto_scale_lr', 'model', 'optim_wrapper', 'param_scheduler')
#: In the work dir, says whose run it is.
RECORD = 'transfer.json'


@dataclass(frozen=True)
class Task:
    """What a backbone is transferred to.

    Attributes:
        name: As on the command line.
        config: Name of the config.
        source: Where the published figures stand.
        published: Figures in percent by metric, by initialisation.
        packages: What it needs beyond the extras.
    """

    name: str
    config: str
    source: str = ''
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    packages: Sequence[str] = ()

    def published_for(self, start: str | None) -> dict[str, Any] | None:
        """Return the figures that belong beside a result.

        Args:
            start: ``'random'``, ``'supervised'``, the method that made the
                checkpoint, or None if it is not known.

        Returns:
            The published figures of the same initialisation by metric, if
            there are any; source, and those of the others as text. None if
            nothing was published for the task.
        """
        if not self.published:
            return None
        others = {
            name: ', '.join(f'{k} {v}' for k, v in figures.items())
            for name, figures in self.published.items()
            if name != start
        }
        same = self.published.get(start or '', {})
        return {**same, 'source': self.source, **others}


def read_tasks() -> dict[str, Task]:
    """Return the tasks in ``configs/benchmarks/transfer.yml``, by name."""
    content = load(config_root() / 'benchmarks' / 'transfer.yml')
    return {name: Task(name, **entry) for name, entry in content.items()}


def parser() -> argparse.ArgumentParser:
    """Return the command line of ``tools/transfer.sh``, less the GPUs."""
    result = argparse.ArgumentParser(
        prog='transfer.sh',
        usage='bash tools/transfer.sh CKPT TASK [GPUS] [--data-root DIR] '
        '[--check] [ARGUMENTS OF train.py]',
        description='Fine-tune a backbone on a task, test it, and append the '
        'figures to results.jsonl in the work dir. Call it again to go on '
        'where it was stopped.',
        allow_abbrev=False,
    )
    result.add_argument(
        'checkpoint', metavar='CKPT', help='file, or supervised, or random'
    )
    result.add_argument(
        'task', metavar='TASK', help=f'one of {", ".join(read_tasks())}'
    )
    result.add_argument(
        '--data-root', metavar='DIR', help="instead of the config's"
    )
    result.add_argument(
        '--check',
        action='store_true',
        help='look whether everything is there, and stop',
    )
    cli.add_debug(result)
    return result


def prepare(
    args: argparse.Namespace, arguments: Sequence[str]
) -> tuple[Task, Config, argparse.Namespace]:
    """Check everything that can be checked before a run.

    Args:
        args: What :func:`parser` understood.
        arguments: The rest, for ``train.py``.

    Returns:
        Task, config and arguments of the training.

    Raises:
        FileNotFoundError: If checkpoint or data do not exist.
        ImportError: If a package is missing.
        ValueError: If the task is unknown, an argument contradicts the
            purpose, or the work dir belongs to another run.
    """
    tasks = read_tasks()
    if args.task not in tasks:
        raise ValueError(
            f'There is no task {args.task!r}; use one of {", ".join(tasks)}.'
        )
    task = tasks[args.task]
    if args.checkpoint not in WITHOUT_FILE:
        cli.require_file(args.checkpoint)
    for package in task.packages:
        if find_spec(package) is None:
            raise ImportError(
                f'{task.name} needs the package {package}, which no extra of '
                'mmmoco brings: docs/transfer.md says how it is installed.'
            )
    training = train.parser().parse_args([task.config, *arguments])
    for name in ('init', 'resume', 'load_from', 'overwrite'):
        if getattr(training, name):
            raise ValueError(
                f'--{name.replace("_", "-")}: transfer.sh starts from CKPT, '
                'and resumes by itself.'
            )
    training.init = args.checkpoint
    training.work_dir = training.work_dir or _work_dir(args)
    _check_record(Path(training.work_dir), _record(args, training))
    if Path(training.work_dir).is_dir():
        training.resume = checkpoint_io.find_latest(training.work_dir)
    cfg = train.prepare(training)
    if args.data_root:
        move_data(cfg, args.data_root)
    check_data(cfg, task.name)
    return task, cfg, training


def transfer(args: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Fine-tune and test as the command line says, and record the result."""
    task, cfg, training = prepare(args, arguments)
    if args.check:
        sys.stdout.write(f'{task.config} → {training.work_dir}\n')
        return
    os.environ.setdefault('LOCAL_RANK', str(training.local_rank or 0))
    init_processes(cfg, training.launcher)
    if is_main_process():
        os.makedirs(training.work_dir, exist_ok=True)
        record = json.dumps(_record(args, training))
        checkpoint_io.write_text(Path(training.work_dir) / RECORD, record)
    runner = build_runner(cfg)
    print_log(f'Initialised: {cfg.initialization}.', logger='current')
    runner.train()
    metrics = in_percent(runner.test(), cfg.default_scope)
    start = args.checkpoint
    if start not in WITHOUT_FILE:
        start = method_of(checkpoint_io.read(args.checkpoint))
    append_result(
        training.work_dir,
        task=task.name,
        protocol={
            'config': Path(task.config).name,
            'init': Path(args.checkpoint).name,
            'iterations': runner.max_iters,
        },
        metrics=metrics,
        cfg=cfg,
        checkpoint=checkpoint_io.find_latest(training.work_dir),
        published=task.published_for(start),
        seed=runner.seed,
    )
    print_log(
        f'{task.name} from {args.checkpoint}: {figures_text(metrics)}',
        logger='current',
    )


def in_percent(metrics: Mapping[str, Any], scope: str) -> dict[str, float]:
    """Return the figures of an evaluator in percent, by their short names.

    Args:
        metrics: As the test loop returns them.
        scope: ``'mmdet'``, whose figures are fractions, −1 standing for no
            such objects, or ``'mmseg'``, whose figures are percent.
    """
    factor = 100.0 if scope == 'mmdet' else 1.0
    return {
        name.rpartition('/')[2]: round(factor * float(value), 4)
        for name, value in metrics.items()
        if isinstance(value, Real) and math.isfinite(value)
        if float(value) >= 0
    }


def move_data(cfg: Config, place: str) -> None:
    """Let a config read its data from another place.

    Args:
        cfg: Config to change: data sets and evaluators.
        place: Instead of the ``data_root`` of the training data.

    Raises:
        ValueError: If the training data have none.
    """
    roots = [d.data_root for d in _datasets(cfg, LOADERS[:1])]
    if not roots:
        raise ValueError(
            f'--data-root {place}: the data of this config have no data_root.'
        )
    old = roots[0].rstrip('/')

    def moved(node: Any) -> Any:
        if isinstance(node, dict):
            for key, value in node.items():
                node[key] = moved(value)
        elif isinstance(node, list | tuple):
            return type(node)(map(moved, node))
        elif isinstance(node, str) and f'{node}/'.startswith(f'{old}/'):
            return place.rstrip('/') + node[len(old) :]
        return node

    for part in (*LOADERS, *EVALUATORS):
        if part in cfg:
            cfg[part] = moved(cfg[part])


def check_data(cfg: Config, task: str) -> None:
    """Check that folders and lists of the data exist.

    Raises:
        FileNotFoundError: Naming the first that does not.
    """
    paths = []
    for dataset in _datasets(cfg, LOADERS):
        prefix = dataset.get('data_prefix') or {}
        parts = prefix.values() if isinstance(prefix, dict) else [prefix]
        for part in (dataset.get('ann_file') or '', *parts):
            paths.append(Path(dataset.data_root, part or ''))
    for node in dicts_in([cfg.get(part) for part in EVALUATORS]):
        if node.get('ann_file'):
            paths.append(Path(node['ann_file']))
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(
                f'{task}: {str(path)!r} does not exist. docs/transfer.md '
                'shows the folders; --data-root says where they are.'
            )


def _datasets(cfg: Config, loaders: Sequence[str]) -> Iterator[Any]:
    for node in dicts_in([cfg.get(loader) for loader in loaders]):
        if node.get('data_root'):
            yield node


def _work_dir(args: argparse.Namespace) -> str:
    """One for every content of a checkpoint: two may have one name."""
    name = args.checkpoint
    if name not in WITHOUT_FILE:
        name = f'{Path(name).stem}-{file_hash(name)[:8]}'
    return f'work_dirs/{args.task}/{name}'


def _record(
    args: argparse.Namespace, training: argparse.Namespace
) -> dict[str, Any]:
    known = args.checkpoint in WITHOUT_FILE
    options = {
        name: str(value)
        for name, value in sorted((training.cfg_options or {}).items())
        if name.startswith(LEARNT)
    }
    return {
        'task': args.task,
        'init': args.checkpoint if known else file_hash(args.checkpoint),
        'seed': training.seed,
        'options': options,
    }


def _check_record(work_dir: Path, record: Mapping[str, Any]) -> None:
    path = work_dir / RECORD
    if not path.is_file():
        return
    found = json.loads(path.read_text(encoding='utf-8'))
    record = {k: v for k, v in record.items() if k in {*found, 'init'}}
    if found != record:
        was = ', '.join(f'{k} {v}' for k, v in found.items())
        now = ', '.join(f'{k} {v}' for k, v in record.items())
        raise ValueError(
            f'{str(work_dir)!r} belongs to another run ({was}), not to this '
            f'one ({now}): choose another --work-dir.'
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``tools/transfer.py``."""
    args, arguments = parser().parse_known_args(argv)
    cli.run(lambda: transfer(args, arguments), 'transfer.sh', args.debug)
