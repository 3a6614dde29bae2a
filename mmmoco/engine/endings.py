"""How a training ends before its time: as decided, or by a fault."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.runner import Runner

_NOTE = 'In the training, at iteration'
_BUILDING = 'While the run was built, in'


class ExpectedEnd(RuntimeError):  # noqa: N818
    """The training was stopped for a reason that the message says whole."""


@contextmanager
def building() -> Iterator[None]:
    """Note on whatever goes wrong that no iteration was begun.

    Until then it is the config that does not fit together.
    """
    try:
        yield
    except Exception as error:
        if not was_training(error):
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = '/'.join(Path(frame.filename).parts[-3:])
            error.add_note(f'{_BUILDING} {place}, line {frame.lineno}.')
        raise


def where_building(error: BaseException) -> str | None:
    """Return where building a run failed, None if it was not that."""
    notes = getattr(error, '__notes__', [])
    found = (note for note in notes if note.startswith(_BUILDING))
    return next((note.removeprefix(_BUILDING).strip() for note in found), None)


def note_training(error: BaseException, iteration: int) -> None:
    """Note on an error that the training was running."""
    error.add_note(f'{_NOTE} {iteration}.')


def was_training(error: BaseException) -> bool:
    """Whether an error came out of a running training."""
    notes = getattr(error, '__notes__', [])
    return any(note.startswith(_NOTE) for note in notes)


def save_at_end(runner: Runner, name: str) -> str:
    """Save the state with which a run stops itself.

    Returns:
        Where it is, or why it is nowhere, for the message.
    """
    try:
        runner.save_checkpoint(runner.work_dir, name, by_epoch=False)
    except OSError as error:
        return f'could not be saved ({error.strerror or error})'
    return f'is in {runner.work_dir}/{name}'
