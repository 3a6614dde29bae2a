"""Find the checkpoint from which a stopped run can go on."""

import logging
import os
import re
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from .reading import CheckpointError, PathLike, read

POINTER = 'last_checkpoint'
_NUMBERED = re.compile(r'(?P<stem>(?!best_).*?)(?P<number>\d+)\.pth')
_PUBLISHED = re.compile(r'.*-[0-9a-f]{8}\.pth')


def find_latest(work_dir: PathLike) -> str | None:
    """Return the newest checkpoint of a run that can be resumed.

    The one that ``last_checkpoint`` points to comes first, then the others
    (``epoch_12.pth``, ``iter_600.pth``) from the newest on. Those that cannot
    be read are skipped with a warning.

    Returns:
        Its path, or None if the folder holds no checkpoint at all.

    Raises:
        CheckpointError: There are checkpoints, but none is usable; starting
            afresh would then overwrite what may still be saved.
    """
    folder = Path(work_dir)
    failures = []
    for path in _candidates(folder):
        if '://' in str(path):
            return str(path)
        try:
            require_resumable(read(path), path)
        except (CheckpointError, OSError) as error:
            failures.append(str(error))
            print_log(
                f'Skipped on resume: {error}', 'current', logging.WARNING
            )
            continue
        return str(path)
    if failures:
        raise CheckpointError(
            f'None of the {len(failures)} checkpoints in {folder} can be '
            'resumed from (the log says why). Give a good one by its path, '
            'or move them away to start afresh.'
        )
    return None


def any_numbered(work_dir: PathLike) -> bool:
    """Whether a folder holds checkpoints of a run, readable or not."""
    return bool(_candidates(Path(work_dir)))


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


def _candidates(folder: Path) -> list[Path | str]:
    numbered = [
        (path, match)
        for path in folder.glob('*.pth')
        if (match := _NUMBERED.fullmatch(path.name))
        and not _PUBLISHED.fullmatch(path.name)
    ]
    if len({match['stem'] for _, match in numbered}) == 1:
        numbered.sort(key=lambda pair: int(pair[1]['number']), reverse=True)
    else:  # epochs and iterations do not compare
        numbered.sort(key=lambda pair: pair[0].stat().st_mtime, reverse=True)
    others: list[Path | str] = [path for path, _ in numbered]
    pointed = _pointed_to(folder)
    if pointed is None:
        return others
    return [pointed, *(path for path in others if path != pointed)]


def _pointed_to(folder: Path) -> Path | str | None:
    pointer = folder / POINTER
    text = (
        pointer.read_text(errors='replace').strip()
        if pointer.is_file()
        else ''
    )
    if not text or '://' in text:
        return text or None
    path = Path(text)
    # A work directory that was moved, or is seen from another folder
    moved = folder / path.name
    return moved if moved.is_file() else path
