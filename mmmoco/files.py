"""Files that others wrote: regular ones only, and none beyond a limit."""

import errno
import json
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import IO, Any

from mmmoco.messages import log_warning, printable, shortened
from mmmoco.system import flags

Path = str | os.PathLike[str]

#: Larger files are refused before they are read.
MAX_BYTES = 1 << 30

_READ = os.O_RDONLY | flags('O_NONBLOCK', 'O_CLOEXEC', 'O_BINARY')
_KINDS = {
    stat.S_IFDIR: 'a folder',
    stat.S_IFIFO: 'a pipe',
    stat.S_IFCHR: 'a device',
    stat.S_IFBLK: 'a device',
    stat.S_IFSOCK: 'a socket',
}


def open_regular(path: Path) -> IO[bytes]:
    """Open a regular file for reading; whatever else lies there is refused.

    Raises:
        OSError: If it cannot be opened, or is no regular file.
    """
    name = os.fspath(path)
    try:
        # Some devices act on being opened, hence the look before; what lies
        # there may be exchanged meanwhile, hence the look after.
        _require_regular(os.stat(name), name)
        number = os.open(name, _READ)
    except ValueError as error:
        text = f'is no name of a file ({error})'
        raise OSError(errno.EINVAL, text, name) from error
    try:
        _require_regular(os.fstat(number), name)
        return os.fdopen(number, 'rb')
    except BaseException:
        os.close(number)
        raise


def _require_regular(found: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), 'something else')
        text = f'{kind}, no regular file'
        raise OSError(errno.EINVAL, text, name)


def read_file(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """Return the content of a regular file.

    Args:
        path: Of the file.
        max_bytes: Larger ones are refused.

    Raises:
        OSError: If it cannot be read, or is too large.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            text = f'{size} bytes are more than max_bytes={max_bytes}'
            raise OSError(errno.EFBIG, text, os.fspath(path))
        try:
            return file.read(size)
        except MemoryError as error:
            text = f'too little memory for its {size} bytes'
            raise OSError(errno.ENOMEM, text, os.fspath(path)) from error


def read_json(path: Path) -> Any:
    """Return what a regular file of JSON holds.

    Raises:
        OSError: If it cannot be read, or is too large.
        ValueError: If it is no JSON.
    """
    try:
        return json.loads(read_file(path))
    except (ValueError, RecursionError) as error:
        name = os.fspath(path)
        raise ValueError(f'{name!r} is no JSON ({error}).') from error


@dataclass
class Listing:
    """What lies below a folder.

    Attributes:
        paths: The files, sorted. A link to nothing is among them: reading it
            tells what is wrong.
        hidden: Names that begin with a dot, left out with all below them.
        odd: Pipes, devices and sockets that are named like files, left out.
        again: Links to folders that were gone through already, left out.
        unmatched: Files that patterns leave out.
    """

    paths: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether nothing was left out."""
        return not (self.hidden or self.odd or self.again)

    def report(self, folder: Path) -> None:
        """Say once what was left out."""
        kinds = (
            ('names that begin with a dot', self.hidden),
            ('pipes, devices and sockets', self.odd),
            ('links to folders that were counted already', self.again),
            ('files by include or exclude', self.unmatched),
        )
        parts = [
            f'{what}: {len(names)} (such as {printable(min(names))!r})'
            for what, names in kinds
            if names
        ]
        if parts:
            log_warning(
                f'Left out below {printable(os.fspath(folder))!r}: '
                f'{"; ".join(parts)}.'
            )


def files_below(
    folder: Path,
    endings: Sequence[str],
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
) -> Listing:
    """List the files below a folder, at any depth, links followed.

    Each folder counts once, however many links lead to it.

    Args:
        folder: Where to begin.
        endings: Of the names that are meant, in lower case.
        include: Patterns (``*_image.tif``, ``train/*``), one of which must
            fit the path below the folder, or a name in it; none: all.
        exclude: Patterns that must not.

    Raises:
        OSError: If a folder cannot be listed: half of the files would be
            missing without a word.
    """
    found, seen = Listing(), set[tuple[int, int]]()
    ends = tuple(endings)
    pending, links = [os.fspath(folder)], list[str]()
    while pending or links:
        if not pending:  # Links come last: the folder itself has the name.
            links.sort(reverse=True)
            pending.append(links.pop())
        place = pending.pop()
        try:
            facts = os.stat(place)
            identity = (facts.st_dev, facts.st_ino)
            if identity in seen:
                found.again.append(place)
                continue
            seen.add(identity)
            with os.scandir(place) as entries:
                for entry in entries:
                    _sort_in(entry, ends, found, pending, links)
        except OSError as error:
            raise OSError(
                error.errno,
                f'This folder cannot be listed ({error.strerror}), so its '
                'files would be missing: mend its permissions, or take it '
                'out of the data',
                place,
            ) from error
    found.paths.sort()
    if include or exclude:
        every, found.paths = found.paths, []
        for path in every:
            below = os.path.relpath(path, folder).replace(os.sep, '/')
            taken = not include or _fits(below, include)
            taken = taken and not _fits(below, exclude)
            (found.paths if taken else found.unmatched).append(path)
    return found


def _fits(below: str, patterns: Sequence[str]) -> bool:
    """Whether a path below a folder, or a name in it, fits a pattern."""
    names = (below, *below.split('/'))
    return any(fnmatchcase(n, pattern) for n in names for pattern in patterns)


def _sort_in(
    entry: os.DirEntry[str],
    endings: tuple[str, ...],
    found: Listing,
    folders: list[str],
    links: list[str],
) -> None:
    """Put an entry of a folder where it belongs."""
    name = entry.name
    meant = name.lower().endswith(endings)
    if entry.is_dir(follow_symlinks=False):
        (found.hidden if hidden(name) else folders).append(entry.path)
    elif hidden(name):
        if meant:
            found.hidden.append(entry.path)
    elif entry.is_symlink():
        mode = _mode_behind(entry)
        if stat.S_ISDIR(mode):
            links.append(entry.path)
        elif meant:
            regular = stat.S_ISREG(mode) or not mode
            (found.paths if regular else found.odd).append(entry.path)
    elif meant:
        regular = entry.is_file(follow_symlinks=False)
        (found.paths if regular else found.odd).append(entry.path)


def _mode_behind(entry: os.DirEntry[str]) -> int:
    """Return what a link leads to; 0: nothing."""
    try:
        return entry.stat().st_mode
    except OSError:
        return 0


def hidden(name: str) -> bool:
    """Tell names that systems and editors make, and nobody means."""
    return name.startswith('.')


def lines_of(names: Iterable[str]) -> str:
    """Return names as a list for other libraries, which strip its lines.

    Raises:
        ValueError: If a name would become another one, or several.
    """
    listed = list(names)
    for name in listed:
        if name != name.strip() or '\n' in name or printable(name) != name:
            raise ValueError(
                f'{shortened(name)} cannot stand in a list of files: rename '
                'it without space at its ends, line ends, and bytes that are '
                'no UTF-8.'
            )
    return ''.join(f'{name}\n' for name in listed)
