"""Going on although the disk is full."""

import errno
import functools
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.logging import print_log

#: No space, no quota, file too large.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def survive(what: str, path: str | None = None) -> Iterator[None]:
    """Turn a full disk into a warning.

    Args:
        what: What is lost then, for the warning.
        path: File that is appended to; a line that was cut off is removed
            from it.
    """
    size = os.path.getsize(path) if path and os.path.isfile(path) else 0
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        if path and os.path.isfile(path):
            os.truncate(path, size)
        warn(f'{what}: {os.strerror(error.errno)}. Training goes on.')


def warn(text: str) -> None:
    """Log a warning that cannot be overlooked."""
    bar = '!' * 70
    print_log(f'\n{bar}\n{text}\n{bar}', 'current', logging.WARNING)


def survive_in(backend: Any) -> None:
    """Let a visualizer's backend lose scalars rather than end the run."""
    for name in ('add_scalar', 'add_scalars'):
        setattr(backend, name, _guarded(backend, getattr(backend, name)))


def _guarded(backend: Any, add: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(add)
    def guarded(*args: Any, **kwargs: Any) -> None:
        path = getattr(backend, '_scalar_save_file', None)
        with survive(f'Scalars are not logged in {path or backend}', path):
            add(*args, **kwargs)

    return guarded
