"""The layouts of checkpoint files: archives, older torch's, plain pickles.

Sizes are compared with those of the file before memory is taken, and every
byte is read at most once; so no file can ask for more than it brings.
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import IO, Any, cast

from mmmoco.plain_pickle import Machine, NotPlainError, finish

from .restricted import KNOWN, MapLocation, Memory, Storage, identify

_ZIP = b'PK\x03\x04'
_PICKLE = b'\x80'
_TAR_AT, _TAR = 257, b'ustar'
#: With these two numbers torch's older files begin.
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_CHUNK = 1 << 20
#: Bytes of all tensors for each byte of the file, and for small ones: tied
#: weights have several names.
_MOST_SHARED, _SHARED_ANYWAY = 16, 64 << 20
_LOCAL_HEADER = struct.Struct('<4s22xHH')
_ENCRYPTED = 1
_BIG_ENDIAN = (
    'a big-endian machine wrote it; save it there as safetensors instead'
)


class UnknownLayoutError(ValueError):
    """The file begins like no checkpoint."""


def load(file: IO[bytes], wanted: MapLocation, only: str | None = None) -> Any:
    """Return the plain data in an open checkpoint.

    Args:
        file: Is read from its beginning.
        wanted: Where the tensors shall be.
        only: The one entry that is wanted, if it is a dictionary.

    Raises:
        NotPlainError: It asks for more than plain data.
        UnknownLayoutError: It is no checkpoint.
        Exception: It is damaged, in any of many ways.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    start = file.read(_TAR_AT + len(_TAR))
    file.seek(0)
    if start.startswith(_ZIP):
        return _Archive(file, size, wanted).load(only)
    if start.startswith(_PICKLE):
        return _load_pickles(_Bounded(file, size), wanted, only)
    if start.endswith(_TAR):
        raise NotPlainError('an old tar file')
    raise UnknownLayoutError('it begins like no checkpoint')


# Archives, as torch writes them since 1.6


class _Archive:
    def __init__(
        self, file: IO[bytes], size: int, wanted: MapLocation
    ) -> None:
        self._file, self._size, self._wanted = file, size, wanted
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
        self._entries = {entry.filename: entry for entry in entries}
        self._root = entries[0].filename.partition('/')[0]
        if f'{self._root}/constants.pkl' in self._entries:
            raise NotPlainError('TorchScript')
        self._places = _places(file, size, entries)
        self._memories: dict[str, Memory] = {}

    def load(self, only: str | None) -> Any:
        root = self._root
        for name in self._entries:
            if not name.startswith(f'{root}/') or '..' in name.split('/'):
                raise ValueError(f'its member {name!a} is not below {root!a}')
        if self._bytes_of(f'{root}/byteorder', b'little') != b'little':
            raise ValueError(_BIG_ENDIAN)
        pickle = io.BytesIO(self._bytes_of(f'{root}/data.pkl'))
        graph = Machine(KNOWN, self._storage).run(pickle)
        return _finished(graph, self._size, only)

    def _bytes_of(self, name: str, missing: bytes | None = None) -> bytes:
        if name not in self._entries and missing is not None:
            return missing
        content = bytearray(self._entry(name).file_size)
        self._read(name, memoryview(content))
        return bytes(content)

    def _entry(self, name: str) -> zipfile.ZipInfo:
        if name not in self._entries:
            raise ValueError(f'the archive lacks {name!a}')
        return self._entries[name]

    def _read(self, name: str, into: memoryview) -> None:
        self._file.seek(self._places[name])
        checksum = _fill(self._file, into)
        # One of 0 was not computed (torch.serialization.set_crc32_options).
        if self._entries[name].CRC not in (0, checksum):
            raise ValueError(f'the checksum of {name!a} is wrong')

    def _storage(self, name: Any) -> Storage:
        dtype, key, location, numel = identify(name, wanted=5)
        member = f'{self._root}/data/{key}'
        length = numel * dtype.itemsize
        if self._entry(member).file_size != length:
            raise ValueError(f'{member!a} has not the size of its storage')
        if key not in self._memories:
            memory = Memory(length, location, self._wanted)
            memory.fill = lambda into: self._read(member, into)
            self._memories[key] = memory
        return Storage(self._memories[key], dtype, numel)


def _finished(graph: Any, size: int, only: str | None = None) -> Any:
    """Make plain what is wanted, if a file of this size can hold it."""
    if only is not None and isinstance(graph, dict):
        graph = {only: graph[only]} if only in graph else {}
    return finish(graph, max(_MOST_SHARED * size, _SHARED_ANYWAY))


def _places(
    file: IO[bytes], size: int, entries: list[zipfile.ZipInfo]
) -> dict[str, int]:
    """Return where each member begins; refuse any that torch cannot write."""
    places: dict[str, int] = {}
    end = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        name = entry.filename
        if entry.compress_type or entry.compress_size != entry.file_size:
            raise ValueError(
                f'its member {name!a} is compressed, which torch never does; '
                'pack it anew without'
            )
        if entry.flag_bits & _ENCRYPTED or name in places:
            raise ValueError(
                f'its member {name!a} is encrypted or there twice'
            )
        file.seek(entry.header_offset)
        header = file.read(_LOCAL_HEADER.size)
        signature, named, extra = _LOCAL_HEADER.unpack(header)
        if signature != _ZIP or entry.header_offset < end:
            raise ValueError(f'its member {name!a} has no place of its own')
        start = entry.header_offset + len(header) + named + extra
        end = start + entry.file_size
        if end > size:
            raise ValueError(f'its member {name!a} is cut off')
        places[name] = start
    return places


def _fill(file: IO[bytes], into: memoryview) -> int:
    """Read into memory and return the checksum of what was read."""
    checksum = 0
    for start in range(0, len(into), _CHUNK):
        part = into[start : start + _CHUNK]
        done = 0
        while done < len(part):
            count = file.readinto(part[done:])  # type: ignore[attr-defined]
            if not count:
                raise EOFError('it is cut off')
            done += count
        checksum = zlib.crc32(part, checksum)
    return checksum


# Plain pickles, and the layout before 1.6: pickles, then the storages


class _Bounded:
    """A file that does not take memory for more than it holds."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self.file, self.left = file, size
        self.size = size

    def read(self, size: int, /) -> bytes:
        if not 0 <= size <= self.left:
            raise EOFError('it is cut off')
        self.left -= size
        return self.file.read(size)

    def readline(self) -> bytes:
        line = self.file.readline(self.left)
        self.left -= len(line)
        return line

    def pickle(self, storage: Callable[[Any], Storage] | None = None) -> Any:
        """Run the pickle that comes next; ``storage`` finds its tensors."""
        return Machine(KNOWN, storage).run(cast(IO[bytes], self))

    def skip(self, size: int) -> int:
        """Pass over bytes that are there, and return where they begin."""
        if size > self.left:
            raise EOFError('it is cut off')
        start = self.size - self.left
        self.left -= size
        self.file.seek(start + size)
        return start


def _load_pickles(
    stream: _Bounded, wanted: MapLocation, only: str | None
) -> Any:
    first = _finished(stream.pickle(), stream.size)
    if type(first) is not int or first != _MAGIC:
        # As Detectron2 exchanges weights
        return first
    if stream.pickle() != _PROTOCOL:
        raise ValueError('it is of an unknown version of torch')
    system = finish(stream.pickle())
    if not (isinstance(system, dict) and system.get('little_endian') is True):
        raise ValueError(_BIG_ENDIAN)
    return _Storages(stream, wanted).load(only)


class _Storages:
    def __init__(self, stream: _Bounded, wanted: MapLocation) -> None:
        self._stream, self._wanted = stream, wanted
        self._storages: dict[str, Storage] = {}
        self._promised = 0

    def load(self, only: str | None) -> Any:
        graph = self._stream.pickle(self._storage)
        keys = finish(self._stream.pickle())
        if type(keys) is not list or sorted(keys) != sorted(self._storages):
            raise ValueError('it does not hold the storages that it names')
        for key in keys:
            self._find(self._storages[key])
        return _finished(graph, self._stream.size, only)

    def _storage(self, name: Any) -> Storage:
        dtype, key, location, numel = identify(name, wanted=6)
        if key not in self._storages:
            length = numel * dtype.itemsize
            self._promised += length
            if self._promised > self._stream.size:
                raise ValueError(
                    f'its storages have {self._promised} bytes, the whole '
                    f'file {self._stream.size}'
                )
            memory = Memory(length, location, self._wanted)
            self._storages[key] = Storage(memory, dtype, numel)
        whole, view = self._storages[key], name[5]
        if whole.dtype != dtype or whole.numel != numel:
            raise ValueError(f'its storage {key!a} has two sizes')
        if view is None:
            return whole
        _, first, count = view  # of torch before 0.4
        if not all(type(n) is int and n >= 0 for n in (first, count)):
            raise ValueError(f'a view of storage {key!a} has no valid size')
        if first + count > numel:
            raise ValueError(f'a view of storage {key!a} is outside of it')
        return Storage(whole.memory, dtype, count, first)

    def _find(self, storage: Storage) -> None:
        # Its number of elements comes first, once more.
        (numel,) = struct.unpack('<q', self._stream.read(8))
        if numel != storage.numel:
            raise ValueError(f'a storage of {storage.numel} has {numel}')
        start = self._stream.skip(storage.memory.length)

        def fill(into: memoryview) -> None:
            self._stream.file.seek(start)
            _fill(self._stream.file, into)

        storage.memory.fill = fill
