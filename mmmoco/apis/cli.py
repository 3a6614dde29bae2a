"""What command-line tools share: options, checks, and how they fail."""

import logging
import os
import sys
import traceback
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path

from mmengine.config import DictAction
from mmengine.logging import print_log

from mmmoco.engine.checkpoint_io import CheckpointError
from mmmoco.engine.collapse import CollapseError
from mmmoco.engine.hooks.non_finite_hook import NonFiniteError

#: What bad input raises; anything else is a fault of ours and keeps its
#: stack trace
#: (files that are missing, unreadable or damaged are OSErrors).
USER_ERRORS = (OSError, KeyError, ValueError, ImportError)


class UsageError(ValueError):
    """Bad input, with a message that says how to mend it."""


def add_cfg_options(parser: ArgumentParser) -> None:
    """Add ``--cfg-options``."""
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE'
    )


def add_work_dir(parser: ArgumentParser) -> None:
    """Add the ``--work-dir`` of evaluations."""
    parser.add_argument(
        '--work-dir', help="where results.jsonl is (the checkpoint's folder)"
    )


def require_file(checkpoint: str) -> None:
    """Raise FileNotFoundError if a checkpoint does not exist."""
    if not Path(checkpoint).is_file():
        raise FileNotFoundError(f'Checkpoint {checkpoint!r} does not exist.')


def add_debug(parser: ArgumentParser) -> None:
    """Add ``--debug``."""
    parser.add_argument(
        '--debug',
        action='store_true',
        help='show the stack trace of an error',
    )


def run(tool: Callable[[], None], name: str, debug: bool) -> None:
    """Run a tool; bad input ends it with one line and exit code 2.

    Args:
        tool: What to run.
        name: Name of the tool, for the message.
        debug: Let the exception through.
    """
    try:
        tool()
    except (
        *USER_ERRORS,
        CheckpointError,
        CollapseError,
        NonFiniteError,
        TypeError,
    ) as error:
        # A TypeError is the user's where a config has an unknown argument.
        if debug or (
            isinstance(error, TypeError) and '__init__()' not in str(error)
        ):
            raise
        print_log(
            traceback.format_exc(), logger='current', level=logging.DEBUG
        )
        text = str(error.args[0]) if error.args else repr(error)
        if isinstance(error, OSError):
            text = str(error)
        sys.stderr.write(
            f'{name}: error: {" ".join(text.split())}\n'
            '(--debug shows where it was raised)\n'
        )
        sys.stderr.flush()
        if 'RANK' in os.environ:
            os._exit(2)  # Do not wait for the other processes.
        sys.exit(2)
