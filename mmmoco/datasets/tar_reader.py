"""The headers of a tar, read as what they are: text that anybody may write.

Python's own reader has followed negative sizes in circles, and puts names and
sparse files of any size into memory. This is what shards need: ustar, GNU's
long names and pax headers, from front to back, each with a limit.
"""

import re
from collections.abc import Iterator
from typing import IO, NamedTuple

_BLOCK = 512
_MOST_HEADER = 1 << 20  # Of a long name, or of a pax header.
_MOST_SIZE = 1 << 60  # Beyond, no file can be.
_PART = 1 << 20

_FILES, _SPARSE = b'0\x007', b'S'
_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL = b'L', b'K', b'x', b'g'
_NO_CONTENT = b'123456'  # Links, devices, folders, pipes.

_OCTAL = re.compile(rb'[ \0]*([0-7]*)[ \0]*')
_DIGITS = re.compile(rb'[0-9]{1,19}')


class Member(NamedTuple):
    """An entry of a tar.

    Attributes:
        name: As it is written.
        size: Of its content.
        offset: Of its content.
        kind: ``'file'``; ``'sparse'``, a file whose content would have to be
            put together; ``'other'``, such as links and devices.
    """

    name: str
    size: int
    offset: int
    kind: str


class TarReader:
    """Goes through a tar once, from front to back.

    Args:
        stream: At its beginning.
        seekable: Pass over contents without reading them.
    """

    def __init__(self, stream: IO[bytes], seekable: bool) -> None:
        self._stream, self._seekable, self._at = stream, seekable, 0

    def __iter__(self) -> Iterator[Member]:
        """Yield the entries.

        Raises:
            OSError: If this is no tar, damaged, or cut off.
        """
        name, pax = b'', dict[bytes, bytes]()
        while True:
            start = self._at
            header = self._read(_BLOCK)
            if not header and not start:
                raise OSError('not a readable tar: it is empty')
            if len(header) < _BLOCK:
                raise _damaged(start, 'the end without an end mark')
            if not header.strip(b'\0'):
                return
            size = _size_of(header, start)
            kind = header[156:157]
            if kind in (_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL):
                text = self._header(size, start)
                if kind == _LONG_NAME:
                    name = text.partition(b'\0')[0]
                elif kind == _PAX:
                    pax = _records(text, start)
                continue
            if b'size' in pax:
                written = _DIGITS.fullmatch(pax[b'size'])
                size = _checked(int(written[0]) if written else -1, start)
            if kind == _SPARSE:
                self._pass_map(header[482])
            yield from self._entry(header, size, name, pax)
            name, pax = b'', {}

    def _entry(
        self, header: bytes, size: int, name: bytes, pax: dict[bytes, bytes]
    ) -> Iterator[Member]:
        """Yield an entry, and pass over its content."""
        full = pax.get(b'path') or name or _short_name(header)
        kind = header[156:157]
        sparse = kind == _SPARSE or any(b'GNU.sparse' in key for key in pax)
        if kind not in _FILES + _SPARSE or full.endswith(b'/'):
            what = 'other'
        else:
            what = 'sparse' if sparse else 'file'
        if kind in _NO_CONTENT:
            size = 0
        text = full.decode('utf-8', 'surrogateescape')
        end = self._at + size
        yield Member(text, size, self._at, what)
        self._go_to(end + -size % _BLOCK)

    def content(self, member: Member) -> bytes:
        """Return the content of the entry that was yielded last.

        Raises:
            OSError: If the tar ends within it.
        """
        data = self._read(member.size)
        if len(data) < member.size:
            raise OSError('the shard ends within this member')
        return data

    def _header(self, size: int, start: int) -> bytes:
        if size > _MOST_HEADER:
            raise _damaged(start, f'a header of {size} bytes')
        text = self._read(size)
        if len(text) < size:
            raise _damaged(start, 'the end within a header')
        self._go_to(self._at + -size % _BLOCK)
        return text

    def _pass_map(self, more: int) -> None:
        """Pass over the map of a sparse file, as GNU wrote it once."""
        while more:
            block = self._read(_BLOCK)
            more = block[504] if len(block) == _BLOCK else 0

    def _read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._at += len(data)
        return data

    def _go_to(self, place: int) -> None:
        if self._seekable:
            self._stream.seek(place)
            self._at = place
        while self._at < place:
            if not self._read(min(_PART, place - self._at)):
                return


def _damaged(start: int, what: str) -> OSError:
    return OSError(f'not a readable tar: {what} at byte {start}')


def _size_of(header: bytes, start: int) -> int:
    """Return the size in a header whose sum is right.

    Raises:
        OSError: If the header is damaged.
    """
    if header.startswith((b'\x1f\x8b', b'BZh', b'\xfd7zXZ', b'\x28\xb5\x2f')):
        raise _damaged(start, 'a compressed file')
    total = sum(header) - sum(header[148:156]) + 8 * ord(' ')
    high = sum(byte > 127 for byte in header)  # Some summed signed bytes.
    if _number(header[148:156]) not in (total, total - 256 * high):
        raise _damaged(start, 'no header, or a damaged one,')
    return _checked(_number(header[124:136]), start)


def _checked(size: int, start: int) -> int:
    if not 0 <= size <= _MOST_SIZE:
        raise _damaged(start, 'a size that cannot be')
    return size


def _number(field: bytes) -> int:
    """Return an octal number, or GNU's binary one; −1: it is none."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], 'big')
    match = _OCTAL.fullmatch(field.partition(b'\0')[0] or field)
    return int(match[1] or b'0', 8) if match else -1


def _short_name(header: bytes) -> bytes:
    name, prefix = (
        field.partition(b'\0')[0] for field in (header[:100], header[345:500])
    )
    ustar = header[257:263] == b'ustar\0'
    return prefix + b'/' + name if ustar and prefix else name


def _records(text: bytes, start: int) -> dict[bytes, bytes]:
    """Return what a pax header says: lines of "length key=value".

    Raises:
        OSError: If it is damaged.
    """
    result, place = dict[bytes, bytes](), 0
    while place < len(text) and text[place]:
        length = _DIGITS.match(text, place)
        end = place + int(length[0]) if length else 0
        line = text[length.end() : end] if length else b''
        key, equal, value = line.partition(b'=')
        if not (equal and key.startswith(b' ') and line.endswith(b'\n')):
            raise _damaged(start, 'a damaged header')
        result[key[1:]] = value[:-1]
        place = end
    return result
