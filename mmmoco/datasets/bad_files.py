"""What happens to files that cannot be read: noted, and replaced."""

import json
import logging
import os
import re
import socket
from pathlib import Path
from typing import NamedTuple

from mmengine.logging import print_log

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


#: How PIL calls bytes that it cannot identify.
_MEMORY = re.compile(r' <_io\.BytesIO object at \w+>')

_FULL_NAME = f'{__name__}.UnreadableDataError'


class BadFileLog:
    """Notes of one process about bad files, each file once.

    Every process writes a file of its own in ``folder``, so that nothing has
    to be locked. Without a folder the notes are warnings in the log.

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
        bad = BadFile(name, reason_of(error))
        if self.folder is None:
            print_log(
                f'Bad file {bad.name!r}: {bad.reason}',
                logger='current',
                level=logging.WARNING,
            )
            return
        file = self.folder / f'{socket.gethostname()}-{os.getpid()}.jsonl'
        with file.open('a', encoding='utf-8') as stream:
            stream.write(json.dumps(bad) + '\n')

    def move_to(self, folder: str | os.PathLike[str]) -> None:
        """Write to a folder from now on; before workers are started."""
        self.folder = Path(folder)

    def read(self) -> list[BadFile]:
        """Return what all processes noted in the folder, each file once."""
        found: dict[str, BadFile] = {}
        if self.folder is None:
            return []
        for file in sorted(self.folder.glob('*.jsonl')):
            text = file.read_text(encoding='utf-8')
            # A line that is being written has no end yet.
            for line in text[: text.rfind('\n') + 1].splitlines():
                bad = BadFile(*json.loads(line))
                found.setdefault(bad.name, bad)
        return list(found.values())


def reason_of(error: BaseException | str) -> str:
    """Return why in one line: the cause if the error has one."""
    if isinstance(error, str):
        return error
    cause = error.__cause__ or error
    text = getattr(cause, 'strerror', None) or str(cause)
    text = _MEMORY.sub('', text)
    return ' '.join(text.split()) or type(cause).__name__
