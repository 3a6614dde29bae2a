"""Fine-tune, test, record: transfer to other tasks."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from numbers import Real
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.fileio import load

from mmmoco.apis import cli
from mmmoco.apis.exchange.export_backbone import method_of
from mmmoco.apis.lookup import config_root
from mmmoco.engine import checkpoint_io
from mmmoco.engine.results import append_result, figures_text, file_hash
from mmmoco.messages import log_info
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


def prepare(
    start: str, name: str, data_root: str | None, training: Mapping[str, Any]
) -> tuple[Task, Config, dict[str, Any]]:
    """Check everything that can be checked before a run.

    Args:
        start: A checkpoint, ``'supervised'`` or ``'random'``.
        name: Of the task.
        data_root: Where its data are; default: the config's.
        training: Arguments of the training.

    Returns:
        The task, the config of its training, and whose work dir it is.

    Raises:
        FileNotFoundError: If checkpoint or data do not exist.
        ImportError: If a package is missing.
        ValueError: If the task is unknown, an argument contradicts the
            purpose, or the work dir belongs to another run.
    """
    tasks = read_tasks()
    if name not in tasks:
        raise ValueError(
            f'There is no task {name!r}; use one of {", ".join(tasks)}.'
        )
    task = tasks[name]
    content = start
    if start not in WITHOUT_FILE:
        cli.require_file(start)
        content = file_hash(start)
    for package in task.packages:
        if find_spec(package) is None:
            raise ImportError(
                f'{task.name} needs the package {package}, which no extra of '
                'mmmoco brings: docs/transfer.md says how it is installed.'
            )
    for option in ('init', 'resume', 'load_from', 'overwrite'):
        if training.get(option):
            raise ValueError(
                f'--{option.replace("_", "-")}: transfer.sh starts from CKPT, '
                'and resumes by itself.'
            )
    # One for every content of a checkpoint: two may have one name.
    stem = start if content == start else f'{Path(start).stem}-{content[:8]}'
    work_dir = training.get('work_dir') or f'work_dirs/{name}/{stem}'
    record = {
        'task': name,
        'init': content,
        'seed': training.get('seed'),
        'options': {
            key: str(value)
            for key, value in sorted(
                (training.get('cfg_options') or {}).items()
            )
            if key.startswith(LEARNT)
        },
    }
    _check_record(Path(work_dir), record)
    resume = Path(work_dir).is_dir() and checkpoint_io.find_latest(work_dir)
    started = dict(init=start, work_dir=work_dir, resume=resume or False)
    cfg = train.prepare(task.config, **{**training, **started})
    if data_root:
        move_data(cfg, data_root)
    check_data(cfg, task.name)
    return task, cfg, record


def run(
    start: str, task: Task, cfg: Config, record: Mapping[str, Any]
) -> tuple[str | None, dict[str, float]]:
    """Fine-tune and test; return newest checkpoint and figures."""
    runner = train.build(cfg)
    if is_main_process():
        path = Path(cfg.work_dir) / RECORD
        checkpoint_io.write_text(path, json.dumps(record))
    runner.train()
    metrics = in_percent(runner.test(), cfg.default_scope)
    known = start in WITHOUT_FILE
    checkpoint = checkpoint_io.find_latest(cfg.work_dir)
    append_result(
        cfg.work_dir,
        task=task.name,
        protocol={
            'config': Path(task.config).name,
            'init': Path(start).name,
            'iterations': runner.max_iters,
        },
        metrics=metrics,
        cfg=cfg,
        checkpoint=checkpoint,
        published=task.published_for(
            start if known else method_of(checkpoint_io.read(start))
        ),
        seed=runner.seed,
    )
    log_info(f'{task.name} from {start}: {figures_text(metrics)}')
    return checkpoint, metrics


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
