"""Being stopped by the scheduler, and starting again."""

import json
import time
from pathlib import Path
from typing import Any

from mmmoco.engine import checkpoint_io
from mmmoco.engine.endings import ExpectedEnd
from mmmoco.restarts import MARKER

#: What becomes the marker on a full disk, and its size in bytes.
RESERVE = '.PREEMPTED.reserve'
BLOCK = 4096


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
