"""``results.jsonl``: one line for every evaluation, never rewritten."""

import hashlib
import json
import os
import platform
import time
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.dist import master_only

from mmmoco.engine import checkpoint_io
from mmmoco.engine.disk import survive
from mmmoco.json_lines import read_json_lines
from mmmoco.older_versions import sha256_of


@master_only
def append_result(
    work_dir: str,
    *,
    task: str,
    protocol: dict[str, Any],
    metrics: dict[str, float],
    cfg: Config,
    checkpoint: str | None = None,
    epoch: int | None = None,
    iteration: int | None = None,
    published: dict[str, Any] | None = None,
    seed: int | None = None,
    remarks: dict[str, Any] | None = None,
) -> None:
    """Append one evaluation to ``work_dir/results.jsonl``.

    Args:
        work_dir: Folder of the run.
        task: What was evaluated, for example ``'knn'``.
        protocol: Everything that the figures depend on.
        metrics: The figures, in percent.
        cfg: Resolved config; its hash tells runs apart.
        checkpoint: Evaluated file, None for the model in training.
        epoch: Epochs trained.
        iteration: Iterations trained, if the run counts these; 0: untrained.
        published: Figures of the authors, if there are any.
        seed: Seed of the run.
        remarks: What else a reader of the figures must know.
    """
    line = {
        'task': task,
        'protocol': protocol,
        'checkpoint': checkpoint,
        'checkpoint_hash': file_hash(checkpoint) if checkpoint else None,
        'epoch': epoch,
        'iteration': iteration,
        'metrics': metrics,
        'published': published,
        'config_hash': config_hash(cfg),
        'seed': seed,
        'remarks': remarks or {},
        'machine': f'{platform.machine()}, {os.cpu_count()} CPUs',
        'time': time.strftime('%Y-%m-%dT%H:%M:%S'),
    }
    text = json.dumps(line) + '\n'
    path = os.path.join(work_dir, 'results.jsonl')
    with survive(f'This result is not in {path}: {text.strip()}', path):
        os.makedirs(work_dir, exist_ok=True)
        checkpoint_io.append_text(path, text)


def read_results(work_dir: str) -> list[dict[str, Any]]:
    """Return the evaluations in ``work_dir``, oldest first.

    Raises:
        ValueError: If a line is no result, naming it.
    """
    path = os.path.join(work_dir, 'results.jsonl')
    return read_json_lines(path, _check) if os.path.isfile(path) else []


def _check(record: dict[str, Any]) -> None:
    kinds = dict(task=str, protocol=dict, metrics=dict, config_hash=str)
    for name, kind in kinds.items():
        if not isinstance(record.get(name), kind):
            raise ValueError(f'no result: {name!r} is not a {kind.__name__}')


def figures_text(metrics: Mapping[str, float]) -> str:
    """Return figures in percent as a line of a log has them."""
    words = {'top1': 'top-1', 'top5': 'top-5'}
    return ', '.join(
        f'{words.get(name, name)} {value:.2f} %'
        for name, value in metrics.items()
    )


def file_hash(path: str) -> str:
    """Return a short hash of a file's content."""
    with open(path, 'rb') as file:
        return sha256_of(file)[:16]


def config_hash(cfg: Config) -> str:
    """Return a short hash of a resolved config."""
    text = json.dumps(cfg.to_dict(), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
