"""One run, one work dir."""

import errno
import fcntl
import logging
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mmengine.dist import broadcast_object_list, get_dist_info
from mmengine.logging import print_log

from mmmoco.engine import checkpoint_io
from mmmoco.engine.checkpoint_io.latest import POINTER

LOCK = '.lock'

#: What a file system without locks answers.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
#: Of this process; its own locks do not keep it out.
_held: set[str] = set()


class WorkDirError(ValueError):
    """A work dir belongs to another run."""


@contextmanager
def claimed(
    work_dir: str,
    out_dir: str | None = None,
    goes_on: bool = False,
    overwrite: bool = False,
    start: str | None = None,
) -> Iterator[None]:
    """Keep other runs out of a work dir while this one trains.

    The first process claims it for all. The lock is one of the kernel's: it
    ends with the process, however that ends, and data workers do not have it.

    Args:
        work_dir: Of the run.
        out_dir: Where its checkpoints go, if elsewhere.
        goes_on: With the run that the work dir is of.
        overwrite: Remove the checkpoints of that run.
        start: Checkpoint that the run starts from.

    Raises:
        WorkDirError: If another run is going there, or was and this one is
            not to go on with it.
    """
    rank, processes = get_dist_info()
    outcome: list[str | None] = [None]
    descriptor = None
    if rank == 0:
        try:
            descriptor = _lock(work_dir)
            if not goes_on:
                _make_room(work_dir, out_dir, overwrite, start)
        except (OSError, WorkDirError) as error:
            outcome = [str(error)]
    if processes > 1:
        broadcast_object_list(outcome)
    try:
        if outcome[0] is not None:
            raise WorkDirError(outcome[0])
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)
            _held.discard(os.path.realpath(work_dir))


def _lock(work_dir: str) -> int | None:
    os.makedirs(work_dir, exist_ok=True)
    folder, path = os.path.realpath(work_dir), Path(work_dir, LOCK)
    if folder in _held:
        raise _busy(work_dir, 'in this process')
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o666)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise WorkDirError(f'{path} is no regular file: remove it.')
        # Unlike flock, this lock is not shared with forked processes.
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(descriptor, 200, 0).decode(errors='replace')
        os.close(descriptor)
        if error.errno in (errno.EACCES, errno.EAGAIN):
            words = ' '.join(holder.split())
            raise _busy(work_dir, words) from None
        if error.errno not in _NO_LOCKS:
            raise
        print_log(
            f'The file system of {work_dir} has no locks ({error.strerror}): '
            'see to it that no other run uses this work dir.',
            'current',
            logging.WARNING,
        )
        return None
    except WorkDirError:
        os.close(descriptor)
        raise
    _held.add(folder)
    now = time.strftime('%Y-%m-%d %H:%M:%S')
    text = f'host {socket.gethostname()}, pid {os.getpid()}, since {now}\n'
    with suppress(OSError):  # Only for people; the disk may be full.
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)
    return descriptor


def _busy(work_dir: str, holder: str) -> WorkDirError:
    return WorkDirError(
        f'Another run is going in {work_dir} ({holder or "unknown"}): wait '
        'for it, stop it, or take another --work-dir.'
    )


def _make_room(
    work_dir: str, out_dir: str | None, overwrite: bool, start: str | None
) -> None:
    """Let a new run begin in an unused work dir only."""
    files = checkpoint_io.numbered(work_dir, out_dir)
    pointer = Path(work_dir, POINTER)
    if os.path.lexists(pointer):
        files.append(pointer)
    if not files:
        return
    found = f'{len(files)} file(s) such as {files[0].name}'
    if not overwrite:
        raise WorkDirError(
            f'{work_dir} holds the checkpoints of a run ({found}). To go on '
            'with it give --resume; for a new run take another --work-dir, '
            'or --overwrite to remove them.'
        )
    kept = os.path.realpath(start) if start else None
    if kept in [os.path.realpath(file) for file in files]:
        raise WorkDirError(
            f'The run is to start from {start}, which --overwrite would '
            'remove: take another --work-dir.'
        )
    for file in files:
        file.unlink(missing_ok=True)
    print_log(
        f'This run starts anew: removed the checkpoints of an earlier one '
        f'from {work_dir} ({found}).',
        'current',
        logging.WARNING,
    )
