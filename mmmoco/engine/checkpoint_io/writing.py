"""Write files so that a reader meets the old one or the new one, whole."""

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

import torch

from mmmoco.system import flags, may_run

from .reading import PathLike

_HOST = re.sub(r'[^\w.-]', '_', socket.gethostname())
# Older versions put no random part after the process.
_UNFINISHED = re.compile(
    r'\..+~(?P<host>[\w.-]+)~(?P<pid>\d+)(~[0-9a-f]+)?\.tmp'
)
_GUARDS = flags('O_NOFOLLOW', 'O_CLOEXEC', 'O_BINARY')
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _GUARDS


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
    write_bytes(path, text.encode())


def write_bytes(path: PathLike, content: bytes) -> None:
    """Write a file of any kind, atomically and durably.

    Raises:
        OSError: It could not be written. What was there before stays.
    """
    replace(path, lambda file: file.write(content))


def append_text(path: PathLike, text: str) -> None:
    """Append lines to a text file, if it is one of its folder's own.

    A last line that a killed process left unfinished goes.

    Raises:
        OSError: It could not be written; or as :func:`open_own`.
    """
    with open(open_own(path, os.O_APPEND), 'ab+') as file:
        file.seek(0)
        content = file.read()
        last = content[content.rfind(b'\n') + 1 :]
        if last and _is_json(last):
            text = f'\n{text}'  # Only its end is missing.
        elif last:
            file.truncate(len(content) - len(last))
        file.write(text.encode('utf-8', 'surrogateescape'))


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def open_own(path: PathLike, mode: int = 0) -> int:
    """Open a file to change it, or create it, if it is its folder's own.

    Raises:
        OSError: It could not be opened; or something else lies there, by
            which a file elsewhere would be changed.
    """
    mode |= os.O_RDWR | os.O_CREAT | _GUARDS | flags('O_NONBLOCK')
    try:
        if not hasattr(os, 'O_NOFOLLOW') and os.path.islink(path):
            raise OSError(errno.ELOOP, 'a link')
        descriptor = os.open(path, mode, 0o666)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            raise
        text = 'a link, a pipe or a device is in its place: remove it'
        raise OSError(error.errno, text, os.fspath(path)) from None
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(descriptor)
        text = 'it is no regular file, or has another name too: remove it'
        raise OSError(errno.EINVAL, text, os.fspath(path))
    return descriptor


def remove_leftovers(folder: PathLike) -> list[Path]:
    """Remove the unfinished files of killed processes from a folder.

    Those of processes still running on this machine stay; those of other
    machines are taken for dead, so call it only for a folder that one run at
    a time writes to.
    """
    removed = []
    for path in Path(folder).glob('.*~*~*.tmp'):
        match = _UNFINISHED.fullmatch(path.name)
        if match is None or path.is_symlink() or not path.is_file():
            continue
        if match['host'] == _HOST and may_run(int(match['pid'])):
            continue
        path.unlink(missing_ok=True)
        removed.append(path)
    return removed


def replace(path: PathLike, fill: Callable[[IO[bytes]], object]) -> None:
    """Let ``fill`` write a file, atomically and durably.

    The folder may be a link. A link in the place of the file is replaced, and
    what it points to stays: who may write into a work dir cannot have us
    write elsewhere. The new file has the mode of the one that it replaces.

    Raises:
        OSError: It could not be written. What was there before stays.
    """
    given = Path(path).expanduser()
    target = Path(os.path.realpath(given.parent)) / given.name
    unfinished = target.with_name(
        f'.{target.name}~{_HOST}~{os.getpid()}~{secrets.token_hex(8)}.tmp'
    )
    recorder: _Recorder | None = None
    created = False
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        mode = _mode_of(target)
        descriptor = os.open(unfinished, _NEW_FILE, mode or 0o666)
        created = True
        with open(descriptor, 'wb') as file:
            if mode is not None:
                os.chmod(unfinished, mode)
            recorder = _Recorder(file)
            fill(cast(IO[bytes], recorder))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(target)
    except BaseException as error:
        if created:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
        failure = recorder.failure if recorder else None
        cause = error if isinstance(error, OSError) else failure
        if cause is None:
            raise
        text = f'could not be saved ({cause.strerror})'
        if os.path.exists(target):  # Path.exists() may be refused, too.
            text += '; an older file of that name is untouched'
        raise OSError(cause.errno, text, str(target)) from error
    _sync_folder(target.parent)


@contextlib.contextmanager
def replaced_folder(out: Path) -> Iterator[Path]:
    """Let a folder be filled beside ``out``, and then take its place whole."""
    out.parent.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(8)
    fresh = out.with_name(f'.{out.name}~{token}.tmp')
    old = out.with_name(f'.{out.name}~{token}.old')
    fresh.mkdir()
    try:
        yield fresh
        if out.exists():
            out.rename(old)
        try:
            fresh.rename(out)
        except OSError:
            if old.exists():
                old.rename(out)
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)


def _mode_of(target: Path) -> int | None:
    """Return the mode to keep; None if there is no file yet, or a link.

    Raises:
        OSError: There is something that is no file.
    """
    try:
        found = target.lstat()
    except FileNotFoundError:
        return None
    kind = found.st_mode
    if stat.S_ISLNK(kind):
        if not target.exists() or target.is_file():
            return None
    elif stat.S_ISREG(kind):
        return stat.S_IMODE(kind) & 0o777
    raise OSError(errno.EINVAL, 'it is there, and no regular file')


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
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
