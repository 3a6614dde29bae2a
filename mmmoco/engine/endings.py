"""How a training ends before its time: as decided, or by a fault."""

from mmengine.runner import Runner

_NOTE = 'In the training, at iteration'


class ExpectedEnd(RuntimeError):  # noqa: N818
    """The training was stopped for a reason that the message says whole."""


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
