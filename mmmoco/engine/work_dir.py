"""One run, one work dir."""

import errno
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from mmengine.dist import broadcast_object_list, is_main_process

from mmmoco.engine import checkpoint_io
from mmmoco.engine.checkpoint_io.latest import POINTER, iteration_of
from mmmoco.engine.checkpoint_io.writing import open_own
from mmmoco.engine.disk import survive
from mmmoco.messages import log_warning
from mmmoco.restarts import REPLACED
from mmmoco.system import module

fcntl = module('fcntl')
LOCK = '.lock'

#: What a file system without locks answers.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
#: What a checkpoint raises that no run can go on from.
_UNUSABLE = (checkpoint_io.CheckpointError, OSError, ValueError)
#: Of this process; its own locks do not keep it out.
_held: set[str] = set()


class WorkDirError(ValueError):
    """A work dir belongs to another run."""


@dataclass
class Outdated:
    """Checkpoints that a run replaces; they stay until it trains.

    Attributes:
        work_dir: Of the run.
        files: What is to go.
        refusal: Why the run may not begin if they stay.
        removal: What the log says when they go.
    """

    work_dir: str
    files: list[Path] = field(default_factory=list)
    refusal: str = ''
    removal: str = ''

    def remove(self) -> None:
        """Remove them.

        Raises:
            WorkDirError: If that is not allowed.
        """
        try:
            for file in (*self.files, Path(self.work_dir, REPLACED)):
                file.unlink(missing_ok=True)
        except OSError as error:
            raise WorkDirError(str(error)) from error
        self.files = []
        log_warning(self.removal)


@contextmanager
def claimed(
    work_dir: str,
    out_dir: str | None = None,
    goes_on: bool = False,
    overwrite: bool = False,
    start: str | None = None,
) -> Iterator[Outdated]:
    """Keep other runs out of a work dir while this one trains.

    And out of the folder of its checkpoints, if that is another one. The
    first process claims both for all. The locks are the kernel's: they end
    with the process, however that ends, and data workers do not have them.

    Args:
        work_dir: Of the run.
        out_dir: Where its checkpoints go, if elsewhere.
        goes_on: With the run that the work dir is of.
        overwrite: The checkpoints of that run may be removed; if this one
            goes on from ``start``, those of later iterations.
        start: Checkpoint that the run starts from, or goes on from.

    Yields:
        What is to be removed before the first iteration.

    Raises:
        WorkDirError: If another run is going there, or was and this one is
            not to go on with it, or not with its newest state.
    """
    outcome: list[str | None] = [None]
    outdated = Outdated(work_dir)
    with ExitStack() as locks:
        if is_main_process():
            try:
                folders = checkpoint_io.folders_of(Path(work_dir), out_dir)
                distinct = {os.path.realpath(path): path for path in folders}
                for real, path in distinct.items():
                    locks.enter_context(_locked(path, real))
                if not goes_on:
                    outdated = _earlier(work_dir, out_dir)
                elif start:
                    outdated = _later(work_dir, out_dir, start)
                _check(outdated, overwrite, start)
            except (OSError, WorkDirError) as error:
                outcome = [str(error)]
        broadcast_object_list(outcome)
        if outcome[0] is not None:
            raise WorkDirError(outcome[0])
        yield outdated


def _check(outdated: Outdated, overwrite: bool, start: str | None) -> None:
    """Refuse what would be lost; note what is still to go."""
    note = Path(outdated.work_dir, REPLACED)
    if not outdated.files:
        note.unlink(missing_ok=True)
        return
    if not overwrite:
        raise WorkDirError(outdated.refusal)
    kept = os.path.realpath(start) if start else None
    if kept in [os.path.realpath(file) for file in outdated.files]:
        raise WorkDirError(
            f'The run is to start from {start}, which --overwrite would '
            'remove: take another --work-dir.'
        )
    with survive(f'{note} is not written'):
        checkpoint_io.write_text(note, '')


def _later(work_dir: str, out_dir: str | None, start: str) -> Outdated:
    """Return what a run that is stopped again would go on from instead.

    It takes the newest state of its work dir, which has to be its own.
    """
    later = list[tuple[int, Path]]()
    try:
        begin = iteration_of(start)
    except _UNUSABLE:
        return Outdated(work_dir)  # The run itself says what is wrong.
    for path in checkpoint_io.numbered(work_dir, out_dir):
        with suppress(*_UNUSABLE):
            later.append((iteration_of(path), path))
    later = sorted(pair for pair in later if pair[0] > begin)
    if not later:
        return Outdated(work_dir)
    iteration, newest = later[-1]
    return Outdated(
        work_dir,
        [path for _, path in later],
        f'{work_dir} holds a later state, {newest.name} of iteration '
        f'{iteration}, than {start} of iteration {begin}: once stopped, this '
        'run would go on from that one. Take another --work-dir, or give '
        '--overwrite to remove the later checkpoints.',
        f'This run goes on from iteration {begin}: removed {len(later)} '
        f'checkpoint(s) of later iterations from {work_dir}, such as '
        f'{newest.name}.',
    )


@contextmanager
def _locked(folder: Path, real: str) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    if real in _held:
        raise _busy(folder, 'in this process')
    descriptor = open_own(folder / LOCK)
    _held.add(real)
    try:
        _lock(descriptor, folder)
        yield
    finally:
        _held.discard(real)
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        if fcntl is None:
            raise OSError(errno.ENOSYS, 'python has no fcntl here')
        # Unlike flock, this lock is not shared with forked processes.
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            holder = os.pread(descriptor, 200, 0).decode(errors='replace')
            raise _busy(folder, ' '.join(holder.split())) from None
        if error.errno not in _NO_LOCKS:
            raise
        log_warning(
            f'The file system of {folder} has no locks ({error.strerror}): '
            'see to it that no other run uses this work dir.'
        )
        return
    now = time.strftime('%Y-%m-%d %H:%M:%S')
    text = f'host {socket.gethostname()}, pid {os.getpid()}, since {now}\n'
    with suppress(OSError):  # Only for people; the disk may be full.
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)


def _busy(folder: Path, holder: str) -> WorkDirError:
    return WorkDirError(
        f'Another run is going in {folder} ({holder or "unknown"}): wait '
        'for it, stop it, or take another --work-dir.'
    )


def _earlier(work_dir: str, out_dir: str | None) -> Outdated:
    """Return the checkpoints of another run."""
    files = checkpoint_io.numbered(work_dir, out_dir)
    pointer = Path(work_dir, POINTER)
    if os.path.lexists(pointer):
        files.append(pointer)
    if not files:
        return Outdated(work_dir)
    found = f'{len(files)} file(s) such as {files[0].name}'
    return Outdated(
        work_dir,
        files,
        f'{work_dir} holds the checkpoints of a run ({found}). To go on '
        'with it give --resume; for a new run take another --work-dir, '
        'or --overwrite to remove them.',
        'This run starts anew: removed the checkpoints of an earlier one '
        f'from {work_dir} ({found}).',
    )
