"""Going on although a side file cannot be written.

Everything that a training writes beside its checkpoints goes through here:
logs, scalars, results, lists. None of them is worth a run.
"""

import contextlib
import functools
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mmmoco.messages import log_warning
from mmmoco.private_names import scalar_file_of

_said: set[str] = set()


@contextmanager
def survive(what: str, path: str | None = None) -> Iterator[None]:
    """Turn a file that cannot be written into one warning.

    Args:
        what: What is lost then, for the warning.
        path: File that is appended to; a line that was cut off is removed
            from it.
    """
    size = _size(path)
    try:
        yield
    except OSError as error:
        if path and _size(path) > size:
            with contextlib.suppress(OSError):
                os.truncate(path, size)
        if what not in _said:
            _said.add(what)
            warn(f'{what}: {error.strerror or error}. The run goes on.')


def _size(path: str | None) -> int:
    try:
        return os.path.getsize(path) if path else 0
    except OSError:
        return 0


def warn(text: str) -> None:
    """Log a warning that cannot be overlooked."""
    bar = '!' * 70
    log_warning(f'\n{bar}\n{text}\n{bar}')


def survive_in(backend: Any) -> None:
    """Let a visualizer's backend lose what it shows, not end the run."""
    for name in dir(type(backend)):
        if name.startswith('add_') or name == 'close':
            setattr(backend, name, _guarded(backend, getattr(backend, name)))


def _guarded(backend: Any, work: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(work)
    def guarded(*args: Any, **kwargs: Any) -> None:
        path = scalar_file_of(backend)
        scalars = path if 'scalar' in work.__name__ else None
        name = type(backend).__name__
        with survive(f'Scalars are not logged ({name})', scalars):
            work(*args, **kwargs)

    return guarded


def survive_logging(logger: logging.Logger) -> None:
    """Let a logger lose lines with one warning instead of a stack trace."""
    for handler in logger.handlers:
        place = getattr(handler, 'baseFilename', 'the screen')
        setattr(handler, 'handleError', _say_once(place))  # noqa: B010


def _say_once(place: str) -> Callable[[logging.LogRecord], None]:
    def handle(record: logging.LogRecord) -> None:
        # Logging this would fail as well.
        if place not in _said and sys.stderr is not None:
            _said.add(place)
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.write(
                    f'WARNING: lines of the log are lost, {place} cannot be '
                    f'written: {sys.exc_info()[1]}. The run goes on.\n'
                )

    return handle
