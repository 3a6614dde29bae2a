"""What happens to files that cannot be read: noted, and replaced."""

import json
import os
import socket
from pathlib import Path
from typing import NamedTuple

from mmmoco.messages import clipped, log_warning, printable

#: So many samples in a row may be bad; more mean that the data is not there.
MAX_ATTEMPTS = 20


class BadFile(NamedTuple):
    """A file that could not be used.

    Attributes:
        name: Its path, or archive and member.
        reason: Why.
    """

    name: str
    reason: str


class UnreadableDataError(ValueError):
    """So many files are bad that training makes no sense.

    Args:
        text: What is wrong. From a worker it arrives with the traceback
            before it; only its last line is kept.
    """

    def __init__(self, text: str) -> None:
        last = text.strip().splitlines()[-1]
        super().__init__(last.removeprefix(f'{_FULL_NAME}: '))


#: Characters of a reason; an error may quote a whole file.
_MOST = 300

_FULL_NAME = f'{__name__}.UnreadableDataError'


class BadFileLog:
    """Notes of one process about bad files, each file once.

    Every process writes a file of its own in ``folder``, so that nothing has
    to be locked. Without a folder, or where it cannot be written (a cleaned or
    full TMPDIR), the notes are warnings in the log.

    Args:
        folder: Where to write; None for the log.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = None if folder is None else Path(folder)
        self._known: set[str] = set()

    def note(self, name: str, error: BaseException | str) -> None:
        """Note a file, if it is new to this process."""
        if name in self._known:
            return
        self._known.add(name)
        bad = BadFile(printable(name), printable(reason_of(error)))
        if not self._write(bad):
            log_warning(f'Bad file {bad.name!r}: {bad.reason}')

    def _write(self, bad: BadFile) -> bool:
        """Append to the file of this process; tell whether that went."""
        if self.folder is None:
            return False
        file = self.folder / f'{socket.gethostname()}-{os.getpid()}.jsonl'
        try:
            with file.open('a', encoding='utf-8') as stream:
                stream.write(json.dumps(bad) + '\n')
        except OSError as error:
            log_warning(
                f'Notes about bad files are not kept in {str(file)!r} '
                f'({error.strerror}): they follow here.'
            )
            self.folder = None
            return False
        return True

    def move_to(self, folder: str | os.PathLike[str]) -> None:
        """Write to a folder from now on; before workers are started."""
        self.folder = Path(folder)

    def read(self) -> list[BadFile]:
        """Return what all processes noted in the folder, each file once."""
        found: dict[str, BadFile] = {}
        if self.folder is None:
            return []
        for file in sorted(self.folder.glob('*.jsonl')):
            try:
                text = file.read_text(encoding='utf-8')
            except (OSError, ValueError):
                continue  # Cleaned away meanwhile, or garbled.
            # A line that is being written has no end yet.
            for line in text[: text.rfind('\n') + 1].splitlines():
                try:
                    bad = BadFile(*json.loads(line))
                except (ValueError, TypeError):
                    continue  # Of a disk that was full for a moment.
                found.setdefault(bad.name, bad)
        return list(found.values())


def reason_of(error: BaseException | str) -> str:
    """Return why in one line: the cause if the error has one."""
    if isinstance(error, str):
        return error
    cause = error.__cause__ or error
    text = getattr(cause, 'strerror', None) or str(cause)
    text = ' '.join(text[: 2 * _MOST].split()) or type(cause).__name__
    return clipped(text, _MOST)
