"""``results.jsonl``: one line for every evaluation, never rewritten."""

import hashlib
import json
import os
import platform
import time
from typing import Any

from mmengine.config import Config
from mmengine.dist import master_only


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
    published: dict[str, Any] | None = None,
    seed: int | None = None,
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
        published: Figures of the authors, if there are any.
        seed: Seed of the run.
    """
    line = {
        'task': task,
        'protocol': protocol,
        'checkpoint': checkpoint,
        'epoch': epoch,
        'metrics': metrics,
        'published': published,
        'config_hash': config_hash(cfg),
        'seed': seed,
        'machine': f'{platform.machine()}, {os.cpu_count()} CPUs',
        'time': time.strftime('%Y-%m-%dT%H:%M:%S'),
    }
    os.makedirs(work_dir, exist_ok=True)
    with open(os.path.join(work_dir, 'results.jsonl'), 'a') as file:
        file.write(json.dumps(line) + '\n')


def config_hash(cfg: Config) -> str:
    """Return a short hash of a resolved config."""
    text = json.dumps(cfg.to_dict(), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
