"""What command-line tools share: options, checks, and how they fail."""

import errno
import logging
import os
import shutil
import sys
import time
import traceback
from argparse import ArgumentError, ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch
from mmengine.config import DictAction
from mmengine.logging import print_log
from torch.distributed.elastic.multiprocessing.errors import record

from mmmoco.datasets.bad_files import UnreadableDataError
from mmmoco.engine.checkpoint_io import CheckpointError
from mmmoco.engine.endings import (
    ExpectedEnd,
    accepted_arguments,
    is_foreign,
    was_training,
    where_building,
)

#: What bad input raises while a tool prepares its work (files that are
#: missing, unreadable or damaged are OSErrors).
USER_ERRORS = (OSError, KeyError, ValueError, ImportError)

#: What may end any work.
EXPECTED_ENDS = (ExpectedEnd, CheckpointError, UnreadableDataError)


class UsageError(ValueError):
    """Bad input, with a message that says how to mend it."""


class CfgOptions(DictAction):
    """mmengine's, which ends with a trace where a ``=`` is missing."""

    def __call__(
        self, parser: Any, namespace: Any, values: Any, *rest: Any
    ) -> None:
        """Take the options, if each has its value."""
        for text in values:
            if '=' not in text:
                raise ArgumentError(self, f'{text!r} is not KEY=VALUE')
        super().__call__(parser, namespace, values, *rest)


def add_cfg_options(parser: ArgumentParser) -> None:
    """Add ``--cfg-options``."""
    parser.add_argument(
        '--cfg-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE'
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
    """Run a tool; what the user can mend ends it with one line and code 2.

    Anything else is a fault of ours: its trace goes to the log, to the screen
    and to torchrun.

    Args:
        tool: What to run.
        name: Name of the tool, for the message.
        debug: Let every exception through.
    """

    def explained() -> None:
        try:
            tool()
        except KeyboardInterrupt:
            _end(f'{name}: interrupted\n', 130)
        except Exception as error:
            text = None if debug else _explain(error)
            print_log(
                traceback.format_exc(),
                logger='current',
                level=logging.DEBUG if text else logging.ERROR,
            )
            if text is None:
                raise
            _end(
                f'{name}: error: {" ".join(text.split())}\n'
                '(--debug shows where it was raised)\n',
                2,
            )

    (record(explained) if 'RANK' in os.environ else explained)()


def _explain(error: Exception) -> str | None:
    """Return what the user is told in one line; None for a fault of ours."""
    text = str(error) or repr(error)
    shortage = _shortage(text, error)
    if shortage or isinstance(error, EXPECTED_ENDS):
        return shortage or text
    if was_training(error):
        return None
    if isinstance(error, KeyError) and error.args:
        return str(error.args[0])  # Else it stands between quotes.
    place = where_building(error)
    bare = isinstance(error, ValueError) and place and is_foreign(error)
    if isinstance(error, USER_ERRORS) and not bare:
        return text
    # A TypeError is the user's where a config has an unknown argument.
    if isinstance(error, TypeError) and '__init__()' in text:
        known = accepted_arguments(error)
        return f'{text}. Known: {", ".join(known)}.' if known else text
    if place is not None:
        said = f'{type(error).__name__}: {error}'.rstrip(': ')
        return f'the config does not make a run ({said}; in {place[:-1]}).'
    return None


def _shortage(text: str, error: Exception) -> str | None:
    """Return what is short, if that is what an error is about."""
    if not isinstance(error, RuntimeError | MemoryError | OSError):
        return None
    place = '/dev/shm'
    room = shutil.disk_usage(place if os.path.isdir(place) else os.sep)
    full = os.strerror(errno.ENOSPC) in text and (
        # What a batch needs names it, a queue of workers no file at all.
        '/torch_' in text
        or (getattr(error, 'filename', '') is None and room.free < 1 << 20)
    )
    if full or 'shared memory' in text:
        return (
            f'{place} is full ({room.free >> 10:,} of {room.total >> 10:,} '
            'kB free); data workers hand over their batches there. Give it '
            'more room (docker run --shm-size=8g), or set '
            'train_dataloader.num_workers=0.'
        )
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or (
        "can't allocate memory" in text or os.strerror(errno.ENOMEM) in text
    ):
        return (
            f'out of memory: {text.splitlines()[0]}. Lower '
            'train_dataloader.batch_size, its num_workers or '
            'model.dictionary.size; tools/estimate_memory.py says what a '
            'config needs.'
        )
    return None


def _end(text: str, code: int) -> NoReturn:
    """Say something and end, without waiting for other processes."""
    if os.environ.get('LOCAL_RANK', '0') != '0':
        # The first process mostly says the same, and torchrun then ends all.
        time.sleep(3)
    sys.stderr.write(text)
    sys.stderr.flush()
    if 'RANK' in os.environ:
        logging.shutdown()
        os._exit(code)
    sys.exit(code)
