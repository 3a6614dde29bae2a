"""WebDataset's tar shards, from files and URLs."""

import contextlib
import glob
import http.client
import itertools
import json
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import quote, urljoin

from mmmoco.files import MAX_BYTES, hidden, open_regular, read_file
from mmmoco.functional import derive_seed
from mmmoco.messages import library, shortened
from mmmoco.registry import DATASETS

from .groups import GroupBy, folder_of, group_number
from .image_folder import EXTENSIONS
from .shard_stream import Record, ShardStream
from .tar_reader import Member, TarReader

#: File beside the shards that says how many samples each of them holds.
INDEX_NAME = 'index.json'

#: What a URL may begin with: read by the standard library, or by webdataset.
#: Nothing else is one, whatever a local file is called.
BUILT_IN, BY_WEBDATASET = ('http', 'https'), ('s3', 'gs', 'hf', 'ais')

_URL = re.compile(r'([A-Za-z][A-Za-z0-9+.-]*)://')
_PLAIN = re.compile(r'\w[\w.+=@,()~ -]*')
_LONGEST_NAME = 255  # Bytes, on any disk.
_LABEL = 'cls'
_NUMBER = re.compile(rb'\s*[0-9]{1,18}\s*')
_MOST_LABEL = 1024  # Bytes.
_MOST_INDEX = 64 << 20  # Bytes; some millions of shards.
_SMALLEST = 512  # Bytes of a sample in a tar: its header.
_SECONDS = 60  # of silence before a connection is given up

_Read = Callable[[], bytes]


@DATASETS.register_module()
class TarShards(ShardStream):
    """Images in tar shards: consecutive files of one stem make a sample.

    ``0001.jpg`` with ``0001.cls`` (a whole number) is an image with its
    label, as in WebDataset. Nothing is extracted to the disk; members with an
    absolute path or with ``..`` are refused, and those whose name begins with
    a dot are passed over. Local shards are passed over by their headers; from
    a URL what is skipped is read, but not decoded.

    Args:
        data_root: Folder or URL of a folder with an ``index.json`` (as
            ``mmmoco shards`` writes it); or a folder, file, glob or
            URL of shards; braces such as ``{000..127}`` are expanded
            (extra ``webdataset``). A list of any of these. A URL begins
            with http, https, s3, gs, hf or ais.
        epoch_size: Samples of one epoch over all processes; None: as many as
            the index counts.
        lanes: As for :class:`ShardStream`.
        buffer_size: As for :class:`ShardStream`.
        extensions: Which members are images, in lower case.
        max_bytes: Larger members are refused.
        pipeline: Configs of transforms.
        group_by: What names the group of an image (see ``exclude`` of the
            dictionaries): the suffix of a text member, such as ``'place'``
            for ``0001.place``; ``'json:place'`` for an entry of
            ``0001.json``; or so many folders of the member's path, as for
            :class:`ImageFolderDataset`.

    Raises:
        FileNotFoundError: If there is no such shard.
        ValueError: If the length of an epoch is unknown.
        ImportError: If an optional library is missing.
    """

    def __init__(
        self,
        data_root: str | Sequence[str],
        epoch_size: int | None = None,
        lanes: int | None = None,
        buffer_size: int = 1000,
        extensions: Sequence[str] = (*EXTENSIONS, '.npy'),
        max_bytes: int = MAX_BYTES,
        pipeline: Sequence[dict[str, Any]] = (),
        group_by: GroupBy = None,
    ) -> None:
        self.group_by, self.grouped = group_by, group_by is not None
        if isinstance(group_by, int):
            folder_of('', group_by)  # Before anything is read.
        self.max_bytes = max_bytes
        self.extensions = tuple(e.lower().lstrip('.') for e in extensions)
        places = [data_root] if isinstance(data_root, str) else data_root
        found = [_find(place) for place in places]
        self.shards = [shard for shards, _ in found for shard in shards]
        counts = [count for _, counts in found for count in counts]
        #: Samples of every shard; None if they are not counted.
        self.counts = counts if len(counts) == len(self.shards) else None
        self._first = list(itertools.accumulate(self.counts or [], initial=0))
        if epoch_size is None:
            if self.counts is None:
                raise ValueError(
                    f'{data_root!r} has no {INDEX_NAME}: the length of an '
                    'epoch is unknown. Set dataset.epoch_size, or write the '
                    'shards with mmmoco shards.'
                )
            epoch_size = self._first[-1]
        super().__init__(
            len(self.shards), epoch_size, lanes, buffer_size, pipeline
        )

    def shard_name(self, shard: int) -> str:
        """Return path or URL of a shard."""
        return self.shards[shard]

    def read_shard(self, shard: int) -> Iterator[Record]:
        """Go through a shard; images keep their id in every epoch.

        Raises:
            OSError: If it is damaged, or shorter than the index says.
        """
        name = self.shards[shard]
        number = -1
        groups = itertools.groupby(self._parts(name), lambda p: _stem(p[0]))
        for number, (stem, group) in enumerate(groups):
            parts = {_suffix(member): read for member, read in group}
            images = [s for s in parts if s in self.extensions]
            if self.counts is None:
                sample = derive_seed(0, PurePosixPath(name).name, stem)
            else:
                sample = self._first[shard] + number
            path = f'{name}:{stem}'
            if not images:
                self.bad_files.note(path, f'no image among {sorted(parts)}')
                continue
            path = f'{path}.{images[0]}'
            content = parts[images[0]], parts.get(_LABEL)
            read_group = self._group(stem, parts)
            yield Record(
                path, partial(_load, path, sample, *content, read_group)
            )
        if self.counts is not None and number + 1 < self.counts[shard]:
            raise OSError(
                f'damaged: {number + 1} of {self.counts[shard]} samples'
            )

    def _group(
        self, stem: str, parts: dict[str, _Read]
    ) -> Callable[[], int] | None:
        """Return what reads the number of a sample's group."""
        if self.group_by is None:
            return None
        if isinstance(self.group_by, int):
            name = folder_of(stem, self.group_by)
            return partial(group_number, name)
        suffix, _, entry = self.group_by.partition(':')
        missing = partial(_refuse, f'no member {suffix!r} to group by')
        return partial(_read_group, parts.get(suffix, missing), entry)

    def _parts(self, shard: str) -> Iterator[tuple[str, _Read]]:
        """Yield the files of a shard, in their order, and what reads them."""
        with contextlib.ExitStack() as stack:
            local = scheme_of(shard) is None
            opened = open_regular(shard) if local else open_url(shard)
            tar = TarReader(stack.enter_context(opened), seekable=local)
            try:
                for member in tar:
                    read = self._reader(shard, tar, member, local)
                    if read is not None:
                        yield member.name, read
            except http.client.HTTPException as error:
                raise OSError(f'not a readable tar: {error}') from error

    def _reader(
        self, shard: str, tar: TarReader, member: Member, local: bool
    ) -> _Read | None:
        """Return what reads a member; None: it belongs to no sample.

        Raises:
            OSError: If a member of a URL is too large to be passed over.
        """
        name = member.name
        if member.kind == 'other':
            return None
        if _escapes(name):
            self.bad_files.note(f'{shard}:{name}', 'unsafe name in a tar')
            return None
        if hidden(PurePosixPath(name).name):
            self.bad_files.note(
                f'{shard}:.*', f'begins with a dot, such as {shortened(name)}'
            )
            return None
        if member.kind == 'sparse':
            return partial(_refuse, 'a sparse member')
        if member.size > self.max_bytes:
            reason = (
                f'{member.size} bytes are more than max_bytes={self.max_bytes}'
            )
            if not local:
                raise OSError(f'{shortened(name)}: {reason}')
            return partial(_refuse, reason)
        if local:
            return partial(_slice, shard, member.offset, member.size)
        data = tar.content(member)
        return lambda: data


def _refuse(reason: str) -> bytes:
    raise OSError(reason)


def _slice(file: str, offset: int, size: int) -> bytes:
    """Read bytes of a local file."""
    with open_regular(file) as stream:
        stream.seek(offset)
        try:
            data = stream.read(size)
        except MemoryError as error:
            raise OSError(f'too little memory for its {size} bytes') from error
    if len(data) < size:
        raise OSError('the shard ends within this member')
    return data


def _read_group(member: _Read, entry: str) -> int:
    """Return the number of the group that a member names.

    Raises:
        OSError: If it names none.
    """
    data = member()
    if not entry:
        if len(data) > _MOST_LABEL:
            raise OSError(f'a name of a group of {len(data)} bytes')
        return group_number(data.decode('utf-8', 'surrogateescape'))
    try:
        found = json.loads(data)[entry]
    except (ValueError, KeyError, TypeError, RecursionError):
        # The cause would be given as the reason.
        raise OSError(f'no entry {entry!r} to group by') from None
    if type(found) not in (str, int):
        raise OSError(f'{entry}: {shortened(found, 40)} names no group')
    return group_number(found)


def _load(
    name: str,
    sample: int,
    image: _Read,
    label: _Read | None,
    group: Callable[[], int] | None,
) -> dict[str, Any]:
    """Return what the first transform receives for a sample."""
    result: dict[str, Any] = {'img_path': name, 'sample_idx': sample}
    result['img_bytes'] = image()
    if label is not None:
        text = label()
        if len(text) > _MOST_LABEL or not _NUMBER.fullmatch(text):
            raise OSError(
                f'label {shortened(text, 40)} is no whole number of up '
                'to 18 digits'
            )
        result['gt_label'] = int(text)
    if group is not None:
        result['group'] = group()
    return result


def _stem(name: str) -> str:
    """Path up to the first dot of the file's name."""
    path = PurePosixPath(name)
    return str(path.parent / path.name.partition('.')[0])


def _suffix(name: str) -> str:
    return PurePosixPath(name).name.partition('.')[2].lower()


def _escapes(name: str) -> bool:
    path = PurePosixPath(name)
    return path.is_absolute() or '..' in path.parts or '\\' in name


def scheme_of(place: str) -> str | None:
    """Return the scheme of a URL; None: it is a path.

    Raises:
        ValueError: If it would be a URL of another kind.
    """
    match = _URL.match(place)
    if match is None:
        return None
    scheme = match[1].lower()
    if scheme not in BUILT_IN + BY_WEBDATASET:
        raise ValueError(
            f'{shortened(place)}: {scheme}:// is not read. Give a path, or a '
            f'URL with one of {", ".join(BUILT_IN + BY_WEBDATASET)}.'
        )
    return scheme


def open_url(url: str) -> IO[bytes]:
    """Open a URL for reading from front to back.

    http and https by the standard library, also after a redirection; the
    other schemes by webdataset.

    Raises:
        OSError: If it cannot be opened.
        ImportError: If webdataset is needed and missing.
    """
    if scheme_of(url) in BUILT_IN:
        # The usual opener would follow a redirection to ftp, too.
        opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(),
            urllib.request.UnknownHandler(),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(),
            urllib.request.HTTPDefaultErrorHandler(),
            urllib.request.HTTPRedirectHandler(),
            urllib.request.HTTPErrorProcessor(),
        ):
            opener.add_handler(handler)
        try:
            opened: IO[bytes] = opener.open(url, timeout=_SECONDS)
        except (urllib.error.URLError, http.client.HTTPException) as error:
            raise OSError(f'{url!r}: {error}') from error
        return opened
    try:
        stream: IO[bytes] = _webdataset(url).gopen(url)
    except ValueError as error:  # It knows no reader of this scheme.
        raise OSError(f'{url!r}: {error}') from error
    return stream


def _webdataset(place: str) -> Any:
    return library('webdataset', repr(place))


def _find(place: str) -> tuple[list[str], list[int]]:
    """Return the shards of a place, and their counts if there is an index."""
    if '{' in place and not Path(place).expanduser().exists():
        _webdataset(place)
        from braceexpand import braceexpand

        parts = [_find(part) for part in braceexpand(place)]
        return [s for shards, _ in parts for s in shards], []
    if scheme_of(place) is not None:
        if not place.endswith('/') and not place.endswith(INDEX_NAME):
            return [place], []
        index = urljoin(place, INDEX_NAME)
        with open_url(index) as stream:
            data = stream.read(_MOST_INDEX + 1)
        names, counts = _read_index(data, index)
        # Not joined as a URL: the names are plain.
        folder = index.removesuffix(INDEX_NAME)
        if scheme_of(index) in BUILT_IN:
            names = [quote(name) for name in names]
        return [folder + name for name in names], counts
    path = Path(place).expanduser()
    if path.name == INDEX_NAME:
        path = path.parent
    # What is found is a path, whatever it looks like.
    path = Path(os.path.abspath(path))
    if (path / INDEX_NAME).is_file():
        index = str(path / INDEX_NAME)
        names, counts = _read_index(read_file(index, _MOST_INDEX), index)
        shards = [str(path / name) for name in names]
    else:
        shards, counts = [str(path)], []
        if not path.is_file():
            folder = os.path.join(glob.escape(str(path)), '*.tar')
            pattern = folder if path.is_dir() else str(path)
            shards = sorted(glob.glob(pattern))
    missing = [shard for shard in shards if not Path(shard).is_file()]
    if missing or not shards:
        wrong = 'no shard'
        if missing:
            wrong = f'{shortened(missing[0])} does not exist, or is no regular'
            wrong += ' file'
        raise FileNotFoundError(
            f'data_root {shortened(place)}: {wrong}. Give a folder with '
            '*.tar files, a glob, or a list; mmmoco shards writes them.'
        )
    for shard, count in zip(shards, counts, strict=False):
        size = Path(shard).stat().st_size
        if count * _SMALLEST > size:
            raise ValueError(
                f'{index!r} counts {count} samples in {shard!r}, which has '
                f'{size} bytes and cannot hold them: write the index again.'
            )
    return shards, counts


def _read_index(data: bytes, name: str) -> tuple[list[str], list[int]]:
    """Return names and counts, if each of them can be what it should.

    Raises:
        ValueError: If not.
    """
    if len(data) > _MOST_INDEX:
        raise ValueError(f'{name!r} is larger than {_MOST_INDEX} bytes.')
    try:
        shards = json.loads(data)['shards']
        names = [shard['name'] for shard in shards]
        counts = [shard['samples'] for shard in shards]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f'{name!r} is no index of shards ({shortened(str(error))}).'
        ) from error
    for shard, count in zip(names, counts, strict=True):
        if not (
            isinstance(shard, str)
            and _PLAIN.fullmatch(shard)
            and len(shard.encode()) <= _LONGEST_NAME
        ):
            raise ValueError(
                f'{name!r} names {shortened(shard)}: shards must lie beside '
                'it, and be named by letters, digits and any of "._+=@,()~ -".'
            )
        if type(count) is not int or not 0 <= count < 1 << 31:
            raise ValueError(
                f'{name!r} counts {shortened(count)} samples in '
                f'{shortened(shard)}: this must be a whole number below '
                '2³¹.'
            )
    return names, counts
