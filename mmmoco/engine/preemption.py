"""Being stopped by the scheduler, and starting again."""

import json
import os
import time
from pathlib import Path
from typing import Any

from mmmoco.engine import checkpoint_io
from mmmoco.engine.endings import ExpectedEnd
from mmmoco.engine.work_dir import REPLACED

#: File in the work dir of a run that was stopped and can go on.
MARKER = 'PREEMPTED'

#: What becomes the marker on a full disk, and its size in bytes.
RESERVE = '.PREEMPTED.reserve'
BLOCK = 4096

#: Where torchrun and Slurm count how often they started a job again.
RESTART_COUNTS = ('TORCHELASTIC_RESTART_COUNT', 'SLURM_RESTART_COUNT')


class MarkerError(ExpectedEnd):
    """The run was stopped, and nothing in its work dir says so."""


class Preempted(SystemExit):
    """The run stopped because it was asked to, with its state saved.

    Uncaught it ends the process with exit code 0; whoever goes on after a
    training must look for the marker.
    """

    def __init__(self) -> None:
        super().__init__(0)


def reserve_marker(work_dir: str) -> None:
    """Keep a block of the disk, so that the marker fits on a full one.

    Raises:
        OSError: If it cannot be written.
    """
    checkpoint_io.write_text(Path(work_dir, RESERVE), ' ' * BLOCK)


def write_marker(work_dir: str, **facts: Any) -> None:
    """Say in ``work_dir`` that the run was stopped and can go on.

    Raises:
        OSError: If it cannot be written.
    """
    facts['time'] = time.strftime('%Y-%m-%dT%H:%M:%S')
    text = json.dumps(facts, indent=2) + '\n'
    marker, reserve = Path(work_dir, MARKER), Path(work_dir, RESERVE)
    try:
        checkpoint_io.write_text(marker, text)
    except OSError:
        # Over what is there, so that no new block is needed.
        with reserve.open('r+b', buffering=0) as file:
            file.write(text.encode().ljust(BLOCK))
        reserve.replace(marker)


def remove(work_dir: str, name: str = MARKER) -> None:
    """Remove the marker, or the reserve, if there is one.

    Raises:
        OSError: If that is not allowed.
    """
    Path(work_dir, name).unlink(missing_ok=True)


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
