"""WebDataset's tar shards, from files and URLs."""

import contextlib
import glob
import http.client
import itertools
import json
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple
from urllib.parse import urljoin, urlparse

from mmmoco.functional import derive_seed
from mmmoco.registry import DATASETS

from .image_folder import EXTENSIONS
from .shard_stream import Record, ShardStream

#: File beside the shards that says how many samples each of them holds.
INDEX_NAME = 'index.json'

_LABEL = 'cls'
_SECONDS = 60  # of silence before a connection is given up


class _Part(NamedTuple):
    """A file inside a shard."""

    name: str
    read: Callable[[], bytes]


@DATASETS.register_module()
class TarShards(ShardStream):
    """Images in tar shards: consecutive files of one stem make a sample.

    ``0001.jpg`` with ``0001.cls`` (a whole number) is an image with its
    label, as in WebDataset. Nothing is extracted to the disk; members with an
    absolute path or with ``..`` are refused. Local shards are passed over by
    their headers; from a URL what is skipped is read, but not decoded.

    Args:
        data_root: Folder or URL of a folder with an ``index.json`` (as
            ``tools/make_shards.py`` writes it); or a folder, file, glob or
            URL of shards; braces such as ``{000..127}`` are expanded
            (extra ``webdataset``). A list of any of these.
        epoch_size: Samples of one epoch over all processes; None: as many as
            the index counts.
        lanes: As for :class:`ShardStream`.
        buffer_size: As for :class:`ShardStream`.
        extensions: Which members are images, in lower case.
        pipeline: Configs of transforms.

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
        pipeline: Sequence[dict[str, Any]] = (),
    ) -> None:
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
                    'shards with tools/make_shards.py.'
                )
            epoch_size = self._first[-1]
        super().__init__(
            len(self.shards), epoch_size, lanes, buffer_size, pipeline
        )

    @property
    def metainfo(self) -> dict[str, Any]:
        """Nothing is known of the classes."""
        return {'classes': ()}

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
        groups = itertools.groupby(self._parts(name), lambda p: _stem(p.name))
        for number, (stem, group) in enumerate(groups):
            parts = {_suffix(p.name): p for p in group}
            images = [s for s in parts if s in self.extensions]
            if self.counts is None:
                sample = derive_seed(0, PurePosixPath(name).name, stem)
            else:
                sample = self._first[shard] + number
            path = f'{name}:{stem}'
            if not images:
                self.bad_files.note(path, f'no image among {sorted(parts)}')
                continue
            load = _Loader(f'{path}.{images[0]}', sample, parts, images[0])
            yield Record(load.name, load)
        if self.counts is not None and number + 1 < self.counts[shard]:
            raise OSError(
                f'damaged: {number + 1} of {self.counts[shard]} samples'
            )

    def _parts(self, shard: str) -> Iterator[_Part]:
        """Yield the regular files of a shard, in their order."""
        with contextlib.ExitStack() as stack:
            local = not _is_url(shard)
            try:
                if local:
                    tar = stack.enter_context(tarfile.open(shard, 'r:'))
                else:
                    stream = stack.enter_context(open_url(shard))
                    tar = stack.enter_context(
                        tarfile.open(fileobj=stream, mode='r|')
                    )
                for member in tar:
                    # Else it remembers every one.
                    tar.members = []  # type: ignore[attr-defined]
                    if not member.isfile():
                        continue
                    if _escapes(member.name):
                        self.bad_files.note(
                            f'{shard}:{member.name}', 'unsafe name in a tar'
                        )
                        continue
                    if local:
                        place = (member.offset_data, member.size)
                        yield _Part(member.name, _Slice(shard, *place))
                    else:
                        stored = tar.extractfile(member)
                        data = b'' if stored is None else stored.read()
                        yield _Part(member.name, _Bytes(data))
            except (tarfile.TarError, http.client.HTTPException) as error:
                raise OSError(f'not a readable tar: {error}') from error


@dataclass(frozen=True)
class _Slice:
    """Bytes of a local file."""

    file: str
    offset: int
    size: int

    def __call__(self) -> bytes:
        with open(self.file, 'rb') as stream:
            stream.seek(self.offset)
            data = stream.read(self.size)
        if len(data) < self.size:
            raise OSError('the shard ends within this member')
        return data


@dataclass(frozen=True)
class _Bytes:
    """Bytes at hand."""

    data: bytes

    def __call__(self) -> bytes:
        return self.data


@dataclass(frozen=True)
class _Loader:
    """What the first transform receives for a sample."""

    name: str
    sample: int
    parts: dict[str, _Part]
    image: str

    def __call__(self) -> dict[str, Any]:
        result: dict[str, Any] = {
            'img_bytes': self.parts[self.image].read(),
            'img_path': self.name,
            'sample_idx': self.sample,
        }
        if _LABEL in self.parts:
            text = self.parts[_LABEL].read().decode('ascii', 'replace')
            if not text.strip().isdigit():
                raise OSError(f'label {text[:20]!r} is no whole number')
            result['gt_label'] = int(text)
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


def _is_url(place: str) -> bool:
    return '://' in place or place.startswith('pipe:')


def open_url(url: str) -> IO[bytes]:
    """Open a URL for reading from front to back.

    http and https by the standard library, everything else (``s3://``,
    ``gs://``, ``hf://``, ``pipe:``) by webdataset.

    Raises:
        OSError: If it cannot be opened.
        ImportError: If webdataset is needed and missing.
    """
    if urlparse(url).scheme in ('http', 'https', 'file'):
        try:
            opened: IO[bytes] = urllib.request.urlopen(url, timeout=_SECONDS)
        except urllib.error.URLError as error:
            raise OSError(f'{url!r}: {error}') from error
        return opened
    stream: IO[bytes] = _webdataset(url).gopen(url)
    return stream


def _webdataset(place: str) -> Any:
    try:
        import webdataset
    except ImportError as error:
        raise ImportError(
            f'{place!r} needs webdataset: pip install "mmmoco[webdataset]".'
        ) from error
    return webdataset


def _find(place: str) -> tuple[list[str], list[int]]:
    """Return the shards of a place, and their counts if there is an index."""
    if '{' in place:
        _webdataset(place)
        from braceexpand import braceexpand

        parts = [_find(part) for part in braceexpand(place)]
        return [s for shards, _ in parts for s in shards], []
    if _is_url(place):
        if not place.endswith('/') and not place.endswith(INDEX_NAME):
            return [place], []
        index = urljoin(place, INDEX_NAME)
        with open_url(index) as stream:
            names, counts = _read_index(stream.read(), index)
        return [urljoin(index, name) for name in names], counts
    path = Path(place).expanduser()
    if path.name == INDEX_NAME:
        path = path.parent
    if (path / INDEX_NAME).is_file():
        index = str(path / INDEX_NAME)
        names, counts = _read_index(Path(index).read_bytes(), index)
        shards = [str(path / name) for name in names]
    else:
        folder = path.is_dir()
        pattern = glob.escape(str(path)) + '/*.tar' if folder else str(path)
        shards, counts = sorted(glob.glob(pattern)), []
        if path.is_file():
            shards = [str(path)]
    missing = [shard for shard in shards if not Path(shard).is_file()]
    if missing or not shards:
        raise FileNotFoundError(
            f'data_root {place!r}: '
            + (f'{missing[0]!r} does not exist.' if missing else 'no shard.')
            + ' Give a folder with *.tar files, a glob, or a list; '
            'tools/make_shards.py writes them.'
        )
    return shards, counts


def _read_index(data: bytes, name: str) -> tuple[list[str], list[int]]:
    try:
        shards = json.loads(data)['shards']
        names = [str(shard['name']) for shard in shards]
        counts = [int(shard['samples']) for shard in shards]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f'{name!r} is no index of shards ({error!r}).'
        ) from error
    for shard in names:
        if _escapes(shard) or '/' in shard:
            raise ValueError(
                f'{name!r} names {shard!r}: shards must lie beside it.'
            )
    return names, counts
