"""Write files so that a reader meets the old one or the new one, whole."""

import contextlib
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

import torch

from .reading import PathLike

_HOST = re.sub(r'[^\w.-]', '_', socket.gethostname())
_UNFINISHED = re.compile(r'\..+~(?P<host>[\w.-]+)~(?P<pid>\d+)\.tmp')


def write(checkpoint: dict[str, Any], path: PathLike) -> None:
    """Save a checkpoint to a local path, atomically and durably.

    Raises:
        OSError: It could not be written, for instance because the disk is
            full (``errno`` says which). What was there before stays.
    """
    replace(path, lambda file: torch.save(checkpoint, file))


def write_text(path: PathLike, text: str) -> None:
    """Write a text file, atomically and durably.

    Raises:
        OSError: It could not be written. What was there before stays.
    """
    replace(path, lambda file: file.write(text.encode()))


def write_bytes(path: PathLike, content: bytes) -> None:
    """Write a file of any kind, atomically and durably.

    Raises:
        OSError: It could not be written. What was there before stays.
    """
    replace(path, lambda file: file.write(content))


def remove_leftovers(folder: PathLike) -> list[Path]:
    """Remove the unfinished files of killed processes from a folder.

    Those of processes still running on this machine stay; those of other
    machines are taken for dead, so call it only for a folder that one run at
    a time writes to.
    """
    removed = []
    for path in Path(folder).glob('.*~*~*.tmp'):
        match = _UNFINISHED.fullmatch(path.name)
        if match is None:
            continue
        if match['host'] == _HOST and _is_running(int(match['pid'])):
            continue
        path.unlink(missing_ok=True)
        removed.append(path)
    return removed


def replace(path: PathLike, fill: Callable[[IO[bytes]], object]) -> None:
    """Let ``fill`` write a file, atomically and durably.

    Raises:
        OSError: It could not be written. What was there before stays.
    """
    target = Path(os.path.realpath(Path(path).expanduser()))
    unfinished = target.with_name(f'.{target.name}~{_HOST}~{os.getpid()}.tmp')
    recorder: _Recorder | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open('wb') as file:
            recorder = _Recorder(file)
            fill(cast(IO[bytes], recorder))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        failure = recorder.failure if recorder else None
        cause = error if isinstance(error, OSError) else failure
        if cause is None:
            raise
        raise OSError(
            cause.errno,
            f'could not be saved ({cause.strerror}); an older file of that '
            'name is untouched',
            str(target),
        ) from error
    _sync_folder(target.parent)


class _Recorder:
    """A file that remembers why writing failed: torch's own error does not."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.flush = file.flush
        self.seek, self.tell = file.seek, file.tell
        self.seekable = file.seekable
        self.failure: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.failure = error
            raise


def _sync_folder(folder: Path) -> None:
    # Makes the new name durable. Some network file systems cannot.
    if os.name != 'posix':
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _is_running(pid: int) -> bool:
    if os.name != 'posix':
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
