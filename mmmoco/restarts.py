"""How a run is known to be started again; nothing heavy is imported."""

from __future__ import annotations

import os
from pathlib import Path

#: File in the work dir of a run that was stopped and can go on.
MARKER = 'PREEMPTED'

#: Says that a run has begun whose checkpoints are to replace those here. If it
#: is started again before it has trained, it does not go on from those.
REPLACED = '.replaced'

#: Where torchrun and Slurm count how often they started a job again.
RESTART_COUNTS = ('TORCHELASTIC_RESTART_COUNT', 'SLURM_RESTART_COUNT')


def usual_work_dir(config: str | Path) -> str:
    """Return the work dir of a config that names none."""
    return f'work_dirs/{Path(config).stem}'


def why_started_again(work_dir: str, overwrite: bool = False) -> str | None:
    """Return why a run is a continuation although nobody said so, or None.

    Args:
        work_dir: Of the run.
        overwrite: Whether it was to replace what is there. Then it does not
            go on from that before it has.
    """
    if overwrite and Path(work_dir, REPLACED).exists():
        return None
    if Path(work_dir, MARKER).is_file():
        return f'{work_dir}/{MARKER} says that this run was stopped'
    for name in RESTART_COUNTS:
        count = os.environ.get(name, '0')
        if count.isdigit() and int(count):
            return f'{name}={count}'
    return None
