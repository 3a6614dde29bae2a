"""Find the checkpoint from which a stopped run can go on."""

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmmoco.messages import log_warning

from .reading import CheckpointError, PathLike, read

POINTER = 'last_checkpoint'
_NUMBERED = re.compile(r'(?P<stem>(?!best_).*?)(?P<number>\d{1,18})\.pth')
_PUBLISHED = re.compile(r'.*-[0-9a-f]{8}\.pth')
#: The longest path that Linux knows.
_LONGEST = 4096


def find_latest(
    work_dir: PathLike, out_dir: PathLike | None = None
) -> str | None:
    """Return the newest checkpoint of a run that can be resumed.

    The newest is the one of the highest iteration, whatever its name, its
    date, or what ``last_checkpoint`` says. Those that cannot be read are
    skipped with a warning.

    Args:
        work_dir: Of the run.
        out_dir: ``default_hooks.checkpoint.out_dir`` of its config.

    Returns:
        Its path, or None if there is no checkpoint at all.

    Raises:
        CheckpointError: There are checkpoints, but none is usable; starting
            afresh would then overwrite what may still be saved.
    """
    remote = _remote_pointer(Path(work_dir), out_dir)
    if remote:
        return remote
    best: tuple[int, str] | None = None
    failures = 0
    for group in _candidates(Path(work_dir), out_dir):
        for path in group:  # The highest number first.
            try:
                iteration = iteration_of(path)
            except (CheckpointError, OSError, ValueError) as error:
                failures += 1
                log_warning(f'Skipped on resume: {error}')
                continue
            if best is None or iteration > best[0]:
                best = iteration, str(path)
            break
    if best is not None:
        return best[1]
    if failures or _pointer_text(Path(work_dir)):
        raise CheckpointError(
            f'None of the {failures} checkpoints in {os.fspath(work_dir)} '
            f'(and its {POINTER}) can be resumed from; the log says why. Give '
            'a good one by its path, or move them away to start afresh.'
        )
    return None


def any_numbered(work_dir: PathLike, out_dir: PathLike | None = None) -> bool:
    """Whether a folder holds checkpoints of a run, readable or not."""
    if _remote_pointer(Path(work_dir), out_dir):
        return True
    return any(_candidates(Path(work_dir), out_dir))


def numbered(
    work_dir: PathLike, out_dir: PathLike | None = None
) -> list[Path]:
    """Return the numbered checkpoints of a run, where it saves them."""
    return [
        path
        for folder in folders_of(Path(work_dir), out_dir)
        for path in sorted(folder.glob('*.pth'))
        if _NUMBERED.fullmatch(path.name)
        and not _PUBLISHED.fullmatch(path.name)
    ]


def folders_of(work_dir: Path, out_dir: PathLike | None) -> list[Path]:
    """Return the local folders into which a run saves checkpoints.

    mmengine's hook adds the name of the work dir to an ``out_dir``.
    """
    if not out_dir or '://' in str(out_dir):
        return [work_dir]
    elsewhere = Path(out_dir)
    if elsewhere.absolute() != work_dir.absolute():
        elsewhere = elsewhere / work_dir.absolute().name
    return [work_dir, elsewhere]


def require_resumable(checkpoint: dict[str, Any], path: PathLike) -> None:
    """Check that a checkpoint is the state of a run, not only weights.

    Raises:
        CheckpointError: It is not; says what is lacking.
    """
    meta = checkpoint.get('meta')
    lacking = [
        name
        for name in ('state_dict', 'optimizer', 'message_hub')
        if name not in checkpoint
    ]
    if not (isinstance(meta, dict) and {'epoch', 'iter'} <= set(meta)):
        lacking.append("meta with 'epoch' and 'iter'")
    if lacking:
        raise CheckpointError(
            f'{os.fspath(path)} is not the state of a run that could be '
            f'resumed: it lacks {", ".join(lacking)}. To start from its '
            'weights alone, use load_from.'
        )


def iteration_of(path: PathLike) -> int:
    """Return how far the run was whose state a file is.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It is not the state of a run.
    """
    checkpoint = read(path)
    require_resumable(checkpoint, path)
    iteration = checkpoint['meta']['iter']
    if type(iteration) is not int or iteration < 0:
        raise CheckpointError(
            f'{path} says that it is of iteration {iteration!r}.'
        )
    return iteration


def _candidates(
    work_dir: Path, out_dir: PathLike | None
) -> Iterator[list[Path]]:
    """Yield groups whose numbers compare, each with the highest first."""
    stems: dict[str, list[tuple[int, Path]]] = defaultdict(list)
    for path in numbered(work_dir, out_dir):
        match = _NUMBERED.fullmatch(path.name)
        assert match is not None
        stems[match['stem']].append((int(match['number']), path))
    known: set[str] = set()
    for group in stems.values():
        group.sort(key=lambda pair: pair[0], reverse=True)
        known.update(os.path.realpath(path) for _, path in group)
        yield [path for _, path in group]
    pointed = _pointed_to(work_dir)
    if pointed is not None and os.path.realpath(pointed) not in known:
        yield [pointed]


def _pointer_text(folder: Path) -> str:
    """Return what the pointer says; '' if it is no short line of text."""
    pointer = folder / POINTER
    if not pointer.is_file():
        return ''
    with pointer.open('rb') as file:
        content = file.read(_LONGEST + 1)
    text = content.decode(errors='surrogateescape').strip()
    if len(content) > _LONGEST or not text.isprintable():
        log_warning(f'{pointer} names no checkpoint; it is not followed.')
        return ''
    return text


def _remote_pointer(folder: Path, out_dir: PathLike | None) -> str | None:
    """Return what the pointer says, if it is where the run saves."""
    text = _pointer_text(folder)
    where = str(out_dir or '')
    if '://' in where and text.startswith(f'{where.rstrip("/")}/'):
        return text
    return None


def _pointed_to(folder: Path) -> Path | None:
    text = _pointer_text(folder)
    if not text:
        return None
    path = Path(text)
    # A work directory that was moved, or is seen from another folder
    moved = folder / path.name
    try:
        if moved.name and moved.is_file():
            return moved
        if '://' not in text and path.is_file():
            return path
    except OSError:
        pass
    log_warning(
        f'{folder / POINTER} names {text[:200]!r}, which is no file here; it '
        'is not followed.'
    )
    return None
