"""Feed the readers of untrusted files with what nobody should write.

Valid files are changed (bits, lengths, pieces exchanged, cut), and others are
made up by a grammar. Each is read in a forked process with little memory,
watched by an audit hook. A finding is any exception but the one that the
reader documents, a process that dies, more than 30 seconds, more memory than
allowed, a file outside of the input's folder, a connection, or a process that
was started.

    python benchmarks/fuzz.py --seconds 1200
    python benchmarks/fuzz.py --seconds 60 --only images --seed 7
"""

import argparse
import faulthandler
import io
import json
import logging
import mmap
import os
import pickle
import pickletools
import random
import resource
import shutil
import signal
import struct
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault('OMP_NUM_THREADS', '1')

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

from mmmoco.datasets import (  # noqa: E402
    ImageFolderDataset,
    SampleAddress,
    TarShards,
    UnreadableDataError,
)
from mmmoco.datasets.transforms.bands import LoadBands  # noqa: E402
from mmmoco.datasets.transforms.loading import LoadRGB, open_image  # noqa: E402
from mmmoco.engine import checkpoint_io  # noqa: E402
from mmmoco.engine.results import read_results  # noqa: E402

SECONDS = 30  # for one input
MEMORY = 3 << 30  # beyond what the process has when it begins
BATCH = 250  # inputs of one process
KEPT = 5  # files of one finding
LONGEST_MESSAGE = 5000

Draws = random.Random


@dataclass
class Kind:
    """A reader and what it is fed with.

    Attributes:
        seeds: Returns valid files.
        read: Reads a folder in which the file is called ``name``.
        allowed: What it may raise.
        name: Of the file.
        make: Makes a file up; None: only seeds are changed.
        mend: Puts sums right, so that changes lie behind them.
    """

    seeds: Callable[[], list[bytes]]
    read: Callable[[Path], Any]
    allowed: tuple[type[BaseException], ...]
    name: str
    make: Callable[[Draws], bytes] | None = None
    mend: Callable[[bytes], bytes] = field(default=lambda data: data)


# ------------------------------------------------------------------ changing

NUMBERS = [
    *(0, 1, 2, 7, 8, 100, 512, 1000, 10**6),
    *(value + i for value in (2**7, 2**8, 2**15, 2**16) for i in (-1, 0)),
    *(value + i for value in (2**31, 2**32, 2**63, 2**64) for i in (-1, 0)),
    *(2**31 - 8, 2**40),
]
TEXTS = [
    *(b'', b'-1', b'NaN', b'Infinity', b'1e999', b'9' * 5000, b'"', b'\0'),
    *(b'../', b'/etc/passwd', b'pipe:id', b'file:///etc/passwd', b'%n%s'),
    *(b'[' * 3000, b'{"a":' * 500, b'\\ud800', b'\xff\xfe'),
    '\u0663'.encode(),
]


def changed(data: bytes, others: Sequence[bytes], draws: Draws) -> bytes:
    """Return a file with one to eight changes."""
    result = bytearray(data)
    for _ in range(1 << draws.randrange(4)):
        if not result:
            return draws.randbytes(draws.randrange(64))
        place = draws.randrange(len(result))
        if draws.random() < 0.5:  # Headers come first.
            place = draws.randrange(min(len(result), 600))
        size = 1 << draws.randrange(4)
        how = draws.randrange(9)
        if how == 0:
            result[place] ^= 1 << draws.randrange(8)
        elif how == 1:
            result[place] = draws.randrange(256)
        elif how == 2:
            number = draws.choice(NUMBERS) % (1 << 8 * size)
            order = draws.choice(('little', 'big'))
            result[place : place + size] = number.to_bytes(size, order)
        elif how == 3:
            del result[place:]
        elif how == 4:
            del result[place : place + draws.randrange(1, 600)]
        elif how == 5:
            piece = result[place : place + draws.randrange(1, 600)]
            times = draws.choice((1, 2, 50))
            result[place:place] = piece * times
        elif how == 6:
            other = draws.choice(others)
            start = draws.randrange(max(1, len(other)))
            piece = other[start : start + draws.randrange(1, 2000)]
            result[place : place + len(piece)] = piece
        elif how == 7:
            result[place:place] = draws.choice(TEXTS)
        else:
            text = draws.choice(TEXTS)
            result[place : place + len(text)] = text
    return bytes(result[: 4 << 20])


def with_tar_sums(data: bytes) -> bytes:
    """Put the sums of what looks like headers right."""
    result = bytearray(data)
    for start in range(0, len(result) - 511, 512):
        header = result[start : start + 512]
        if header[257:262] == b'ustar':
            header[148:156] = b' ' * 8
            total = b'%06o\0 ' % sum(header)
            result[start + 148 : start + 156] = total
    return bytes(result)


def with_png_sums(data: bytes) -> bytes:
    """Put the sums of a PNG's chunks right, as far as they can be found."""
    if not data.startswith(b'\x89PNG'):
        return data
    result, place = bytearray(data), 8
    while place + 12 <= len(result):
        size = int.from_bytes(result[place : place + 4], 'big')
        end = place + 8 + size
        if end + 4 > len(result):
            break
        total = zlib.crc32(result[place + 4 : end])
        result[end : end + 4] = total.to_bytes(4, 'big')
        place = end + 4
    return bytes(result)


# --------------------------------------------------------------------- seeds


def pixels(*shape: int, top: int = 256, dtype: Any = np.uint8) -> Any:
    """Return noise."""
    return np.random.default_rng(0).integers(0, top, shape).astype(dtype)


def images() -> list[bytes]:
    """Return an image of every mode and format that is decoded."""
    found = []
    rgb = Image.fromarray(pixels(16, 16, 3))
    options: list[tuple[str, str, dict[str, Any]]] = [
        ('RGB', 'JPEG', {}),
        ('RGB', 'JPEG', dict(progressive=True)),
        ('L', 'JPEG', {}),
        ('CMYK', 'JPEG', {}),
        ('RGB', 'MPO', dict(save_all=True, append_images=[rgb])),
        *((mode, 'PNG', {}) for mode in ('RGB', 'RGBA', 'LA', 'P', '1')),
        ('RGB', 'PNG', dict(save_all=True, append_images=[rgb])),
        *((mode, 'BMP', {}) for mode in ('RGB', 'P', '1')),
        ('RGB', 'WEBP', {}),
        ('RGBA', 'WEBP', dict(lossless=True)),
        ('RGB', 'WEBP', dict(save_all=True, append_images=[rgb])),
        *(
            ('RGB', 'TIFF', dict(compression=c))
            for c in (None, 'tiff_lzw', 'jpeg', 'tiff_adobe_deflate')
        ),
        ('1', 'TIFF', dict(compression='group4')),
        ('F', 'TIFF', {}),
    ]
    for mode, kind, extra in options:
        stream = io.BytesIO()
        rgb.convert(mode).save(stream, kind, **extra)
        found.append(stream.getvalue())
    for kind in ('PNG', 'TIFF'):
        stream = io.BytesIO()
        deep = pixels(16, 16, top=65536, dtype=np.uint16)
        Image.fromarray(deep).save(stream, kind)
        found.append(stream.getvalue())
    import cv2

    deep = pixels(16, 16, 3, top=65536, dtype=np.uint16)
    found += [cv2.imencode(e, deep)[1].tobytes() for e in ('.png', '.tiff')]
    # What PIL knows besides, under names of images.
    found += [b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n', b'FTEX']
    return found


def bands() -> list[bytes]:
    """Return arrays and TIFFs of bands."""
    import tifffile

    found = []
    for dtype in (np.uint8, np.uint16, np.int16, np.float32, np.float64):
        array = pixels(12, 10, 4, top=100, dtype=dtype)
        for order in ('C', 'F'):
            stream = io.BytesIO()
            np.save(stream, np.asarray(array, order=order))  # type: ignore[call-overload]
            found.append(stream.getvalue())
        for options in (
            dict(planarconfig='contig'),
            dict(planarconfig='contig', compression='deflate'),
            dict(planarconfig='contig', tile=(16, 16)),
            dict(planarconfig='contig', bigtiff=True, byteorder='>'),
            dict(extratags=[(42113, 's', 0, '-9999', True)], ome=True),
            dict(imagej=True) if dtype == np.uint16 else {},
        ):
            extra: dict[str, Any] = dict(photometric='minisblack') | options
            if extra.get('ome') or extra.get('imagej'):
                array = np.moveaxis(array, 2, 0)
            stream = io.BytesIO()
            tifffile.imwrite(stream, np.ascontiguousarray(array), **extra)
            found.append(stream.getvalue())
    return found + images()[:6]


def shards() -> list[bytes]:
    """Return small shards in all forms of tar."""
    stream = io.BytesIO()
    Image.fromarray(pixels(4, 4, 3)).save(stream, 'png')
    png = stream.getvalue()
    found = []
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode='w', format=form) as tar:
            for i in range(3):
                for suffix, data in (('png', png), ('cls', b'%d' % i)):
                    long = 'x' * (60 if form == tarfile.USTAR_FORMAT else 150)
                    info = tarfile.TarInfo(f'{long}{i}é.{suffix}')
                    info.size = len(data)
                    info.pax_headers = {'comment': 'x'} if i else {}
                    tar.addfile(info, io.BytesIO(data))
        found.append(stream.getvalue().rstrip(b'\0') + bytes(1024))
    return found


def checkpoints() -> list[bytes]:
    """Return checkpoints in both of torch's forms, and safetensors."""
    import safetensors.torch

    state = {'backbone.w': torch.ones(2, 3), 'backbone.b': torch.zeros(2)}
    optimizer = {'state': {0: {'step': 1}}, 'param_groups': [{'lr': 0.1}]}
    content = {
        'state_dict': state,
        'optimizer': optimizer,
        'meta': {'epoch': 1, 'iter': 2, 'cfg': 'a = 1'},
        'message_hub': {'x': np.arange(3), 'y': np.float64(2)},
    }
    found = []
    for new in (True, False):
        stream = io.BytesIO()
        torch.save(content, stream, _use_new_zipfile_serialization=new)
        found.append(stream.getvalue())
    return [*found, safetensors.torch.save(state)]


def made_checkpoint(draws: Draws) -> bytes:
    """Return torch's zip around a pickle of random instructions."""
    pickles = _pickle(draws)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, 'w') as file:
        file.writestr('x/data.pkl', pickles)
        file.writestr('x/byteorder', draws.choice(('little', 'big', '?')))
        for i in range(draws.randrange(3)):
            file.writestr(f'x/data/{i}', draws.randbytes(24))
        file.writestr('x/version', draws.choice(('3\n', '', '999999', 'x')))
        file.writestr('x/.data/serialization_id', '1')
    return stream.getvalue()


GLOBALS = [
    'collections OrderedDict',
    'collections Counter',
    'argparse Namespace',
    'torch._utils _rebuild_tensor_v2',
    'torch._utils _rebuild_parameter',
    'torch FloatStorage',
    'torch Size',
    'torch float32',
    'torch device',
    'numpy dtype',
    'numpy ndarray',
    'numpy._core.multiarray _reconstruct',
    'numpy.core.multiarray scalar',
    'mmengine.logging.history_buffer HistoryBuffer',
    'builtins getattr',
    'builtins eval',
    'builtins set',
    'os system',
    'posix system',
    'subprocess Popen',
    'mmengine.config Config',
    'pathlib Path',
    '_codecs encode',
]


def _pickle(draws: Draws) -> bytes:
    """Return up to 60 instructions that mostly find what they need."""
    parts = [b'\x80\x02']
    codes = [o for o in pickletools.opcodes if o.name not in ('PROTO', 'STOP')]
    for _ in range(draws.randrange(1, 60)):
        name = draws.choice(GLOBALS).replace(' ', '\n')
        parts.append(
            draws.choice(
                (
                    pickle.dumps(draws.choice((1, 'config', None, b'x', ())))
                    .removeprefix(b'\x80\x04')
                    .removesuffix(b'.'),
                    f'c{name}\n'.encode(),
                    f'c{name}\n)R'.encode(),
                    f'c{name}\n(X\x04\x00\x00\x00truetR'.encode(),
                    b'}q\x00X\x03\x00\x00\x00popq\x01c__builtin__\nlist\nsb',
                    draws.choice((b')', b'}', b']', b'(', b'\x85', b'\x86'))
                    + draws.choice((b'R', b'b', b's', b'a', b'Q', b't', b'l')),
                    b'(X\x07\x00\x00\x00storagectorch\nFloatStorage\n'
                    b'X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQ',
                    b'}X\x0a\x00\x00\x00state_dict}s',
                    draws.choice(codes).code.encode('latin1')
                    + draws.randbytes(draws.randrange(4)),
                )
            )
        )
    return b''.join([*parts, b'.'])


def indices() -> list[bytes]:
    """Return an index of shards."""
    shard = {'name': 'a.tar', 'samples': 3, 'bytes': 10240}
    return [
        json.dumps({'classes': ['a'], 'shards': [shard] * 2}).encode(),
        json.dumps({'shards': [shard | {'name': 'b é.tar'}]}).encode(),
    ]


def lists() -> list[bytes]:
    """Return lists in all their forms."""
    entries = [{'img_path': f'{i}.png', 'gt_label': i} for i in range(4)]
    return [
        b'0.png\n1.png\n',
        b'0.png 0\n1.png 1\r\n',
        b'path,label\n0.png,0\n"1.png",x\n',
        b'img\tclass\n0.png\t0\n',
        '0.png\n1é.png'.encode('utf-16'),
        json.dumps({'metainfo': {}, 'data_list': entries}).encode(),
        json.dumps(['0.png', '1.png']).encode(),
    ]


def results() -> list[bytes]:
    """Return lines of results.jsonl."""
    line = dict(task='knn', protocol={'k': 20}, metrics={'top1': 50.0})
    text = json.dumps(line | dict(config_hash='ab', epoch=3))
    return [f'{text}\n{text}\n'.encode(), f'{text}\n\n'.encode()]


def made_text(draws: Draws) -> bytes:
    """Return JSON of any shape, now and then with what JSON does not have."""

    def value(depth: int) -> str:
        how = draws.randrange(8 if depth else 5)
        if how < 2:
            return draws.choice(
                ('null', 'true', 'NaN', '-1', '1e400', '9' * 400, '"a.tar"')
            )
        if how < 4:
            text = draws.choice(TEXTS).decode('latin1')
            return json.dumps(text)
        if how == 4:
            return json.dumps(draws.choice(KEYS))
        if how == 5:
            return f'[{", ".join(value(depth - 1) for _ in range(3))}]'
        keys = draws.sample(KEYS, 3)
        return (
            '{'
            + ', '.join(f'"{key}": {value(depth - 1)}' for key in keys)
            + '}'
        )

    lines = [value(4) for _ in range(draws.randrange(1, 4))]
    return '\n'.join(lines).encode()


KEYS = ['shards', 'name', 'samples', 'data_list', 'metainfo', 'img_path']
KEYS += ['gt_label', 'classes', 'task', 'protocol', 'metrics', 'config_hash']


# ------------------------------------------------------------------- reading

RGB = [dict(type='LoadRGB')]


def read_images(folder: Path) -> None:
    """Read in the ways that a run, the tools and the page have."""
    path = folder / 'x.jpg'
    last: OSError | None = None
    for load in (
        lambda: LoadRGB()({'img_path': str(path)}),
        lambda: LoadRGB(range=(0, 1))({'img_path': str(path)}),
        lambda: LoadBands()({'img_path': str(path)}),
        lambda: _open(path),
    ):
        try:
            load()
        except OSError as error:
            last = error
    if last:
        raise last


def _open(path: Path) -> None:
    with open_image(path, str(path)) as image:
        np.asarray(image)


def read_bands(folder: Path) -> None:
    """Read a file of bands."""
    LoadBands()({'img_path': str(folder / 'x.tif')})


def read_shards(folder: Path) -> None:
    """Read a shard beside a good one."""
    good = folder / 'good.tar'
    if not good.exists():
        good.write_bytes(shards()[0])
    data = TarShards(str(folder), 8, buffer_size=2, pipeline=RGB)
    data.bad_files.note = lambda *args: None  # type: ignore[method-assign]
    for i in range(10):
        data[SampleAddress(i, 0, 0)]


def read_index(folder: Path) -> None:
    """Read an index beside two shards."""
    if not (folder / 'a.tar').exists():
        for name in ('a.tar', 'b é.tar'):
            (folder / name).write_bytes(shards()[0])
    data = TarShards(str(folder), 8, buffer_size=2, pipeline=RGB)
    data.bad_files.note = lambda *args: None  # type: ignore[method-assign]
    for shard in data.shards:
        if Path(shard).parent != folder:
            raise AssertionError(f'a shard outside: {shard}')
    data[SampleAddress(0, 0, 0)]


def read_list(folder: Path) -> None:
    """Read a list with and without labels."""
    (folder / '0.png').touch()
    for with_labels in (False, True):
        data = ImageFolderDataset(
            str(folder), ann_file='list', with_labels=with_labels
        )
        data.sample(0)


KINDS = {
    'checkpoints': Kind(
        checkpoints,
        lambda folder: checkpoint_io.read(folder / 'x.pth'),
        (checkpoint_io.CheckpointError, OSError),
        'x.pth',
        made_checkpoint,
    ),
    'shards': Kind(
        shards,
        read_shards,
        (UnreadableDataError,),
        'x.tar',
        None,
        with_tar_sums,
    ),
    'images': Kind(
        images, read_images, (OSError,), 'x.jpg', None, with_png_sums
    ),
    'bands': Kind(bands, read_bands, (OSError,), 'x.tif'),
    'index files': Kind(
        indices, read_index, (ValueError, OSError), 'index.json', made_text
    ),
    'lists': Kind(lists, read_list, (ValueError, OSError), 'list', made_text),
    'results': Kind(
        results, read_results, (ValueError,), 'results.jsonl', made_text
    ),
}


# ------------------------------------------------------------------ watching

STARTS = ('subprocess.Popen', 'os.system', 'os.exec', 'os.posix_spawn')
STARTS += ('os.spawn', 'os.fork', 'os.forkpty', 'pty.spawn')
CONNECTS = ('socket.connect', 'socket.bind', 'socket.getaddrinfo', 'ftplib')
WRITES = ('os.remove', 'os.rename', 'os.mkdir', 'os.rmdir', 'os.link')
WRITES += ('os.symlink', 'os.chmod', 'os.chown', 'os.truncate', 'shutil.')


class Watch:
    """Notes what the interpreter was asked to do meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.active = str(folder), False
        self.seen: list[str] = []
        places = (sys.prefix, sys.base_prefix, str(ROOT), '/proc/self')
        self.readable = tuple(map(os.path.realpath, places)) + places

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        """Take an event of the interpreter."""
        if not self.active:
            return
        if event.startswith(STARTS):
            self.seen.append(f'a process: {event} {args!r:.200}')
        elif event.startswith(CONNECTS):
            self.seen.append(f'a connection: {event} {args!r:.200}')
        elif event == 'open' or event.startswith(WRITES):
            self._file(event, args)

    def _file(self, event: str, args: tuple[Any, ...]) -> None:
        path = args[0] if args else ''
        if not isinstance(path, str | bytes | os.PathLike):
            return  # A number, opened before.
        name = os.path.abspath(os.fsdecode(path))
        if name.startswith(self.folder):
            return
        writes = event != 'open' or (
            isinstance(args[2], int)
            and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        )
        if writes or not name.startswith(self.readable):
            self.seen.append(f'a file outside: {event} {name:.200}')


@dataclass
class Finding:
    """What went wrong, and the input."""

    what: str
    detail: str
    data: bytes


def make_input(kind: Kind, seeds: Sequence[bytes], draws: Draws) -> bytes:
    """Return the next input; one of twenty is valid, and must be read."""
    if draws.random() < 0.05:
        return draws.choice(seeds)
    if kind.make is not None and draws.random() < 0.4:
        data = kind.make(draws)
        return changed(data, seeds, draws) if draws.random() < 0.3 else data
    data = changed(draws.choice(seeds), seeds, draws)
    return kind.mend(data) if draws.random() < 0.7 else data


def try_one(kind: Kind, folder: Path, data: bytes, watch: Watch) -> str:
    """Read an input; return '', 'refused' or what is wrong."""
    (folder / kind.name).write_bytes(data)
    watch.seen.clear()
    outcome = ''
    watch.active = True
    try:
        kind.read(folder)
    except kind.allowed as error:
        outcome = 'refused'
        if len(str(error)) > LONGEST_MESSAGE:
            outcome = f'a message of {len(str(error))} characters'
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [f for f in frames if f'{ROOT}/mmmoco' in f.filename]
        place = ours[-1] if ours else frames[-1]
        where = f'{Path(place.filename).name}:{place.lineno}'
        outcome = f'{type(error).__name__} at {where}\n' + ''.join(
            traceback.format_exception(error)
        )
    finally:
        watch.active = False
    return watch.seen[0] if watch.seen else outcome


def child(
    kind: Kind,
    seeds: Sequence[bytes],
    seed: str,
    numbers: range,
    folder: Path,
    shared: mmap.mmap,
) -> None:
    """Try inputs one after the other; the last line says how it went."""
    base = _pages() * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (base + MEMORY, base + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    silent = os.open(os.devnull, os.O_RDWR)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    warnings.simplefilter('ignore')
    logging.disable(logging.CRITICAL)
    trace = (folder.parent / 'trace').open('w')
    faulthandler.enable(trace)
    os.chdir(folder)
    watch = Watch(folder)
    sys.addaudithook(watch)
    counts = [0, 0]
    for number in numbers:
        shared[:16] = struct.pack('<Qd', number, time.monotonic())
        data = make_input(kind, seeds, Draws(f'{seed}/{number}'))
        outcome = try_one(kind, folder, data, watch)
        if outcome in ('', 'refused'):
            counts[outcome == 'refused'] += 1
        else:
            report = folder.parent / 'finding'
            report.write_text(outcome, errors='backslashreplace')
            break
    shared[16:32] = struct.pack('<QQ', *counts)


def _pages() -> int:
    return int(Path('/proc/self/statm').read_text().split()[0])


def batch(
    kind: Kind, seeds: Sequence[bytes], seed: str, numbers: range
) -> tuple[int, int, int, Finding | None]:
    """Run a process over some inputs, and watch it.

    Returns:
        The number after the last one tried, how many were accepted and
        refused, and what was found.
    """
    place = Path(tempfile.mkdtemp(prefix='mmmoco_fuzz_'))
    folder = place / 'input'
    folder.mkdir()
    shared = mmap.mmap(-1, 32)
    shared[:16] = struct.pack('<Qd', numbers[0], time.monotonic())
    pid = os.fork()
    if not pid:
        code = 1
        try:
            child(kind, seeds, seed, numbers, folder, shared)
            code = 0
        finally:
            os._exit(code)
    late = False
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        _, begun = struct.unpack('<Qd', shared[:16])
        if time.monotonic() - begun > SECONDS and not late:
            os.kill(pid, signal.SIGABRT)  # faulthandler says where it is.
            late = True
        elif time.monotonic() - begun > SECONDS + 5:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
    number, _ = struct.unpack('<Qd', shared[:16])
    accepted, refused = struct.unpack('<QQ', shared[16:32])
    try:
        found = _judge(kind, seeds, f'{seed}/{number}', place, status, late)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return number + 1, accepted, refused, found


def _judge(
    kind: Kind,
    seeds: Sequence[bytes],
    address: str,
    place: Path,
    status: int,
    late: bool,
) -> Finding | None:
    """Return what a process found, or how it died."""
    report, trace = place / 'finding', place / 'trace'
    if report.exists():
        what, _, detail = report.read_text().partition('\n')
    elif late or status:
        code = os.waitstatus_to_exitcode(status)
        what = f'more than {SECONDS} s' if late else f'died ({code})'
        detail = trace.read_text() if trace.exists() else ''
    else:
        return None
    data = make_input(kind, seeds, Draws(address))
    return Finding(what, detail, data)


def fuzz(
    names: Sequence[str], seconds: float, seed: int, out: Path
) -> dict[str, dict[str, Any]]:
    """Try inputs until the time is up, each kind in its turn."""
    torch.set_num_threads(1)
    end = time.monotonic() + seconds
    seeds = {name: KINDS[name].seeds() for name in names}
    table: dict[str, dict[str, Any]] = {
        name: dict(inputs=0, accepted=0, refused=0, findings=Counter())
        for name in names
    }
    while time.monotonic() < end:
        for name in names:
            row = table[name]
            first = row['inputs']
            numbers = range(first, first + BATCH)
            row['inputs'], accepted, refused, found = batch(
                KINDS[name], seeds[name], f'{seed}/{name}', numbers
            )
            row['accepted'] += accepted
            row['refused'] += refused
            if found:
                row['findings'][found.what] += 1
                save(out, name, found, row['findings'][found.what])
            if time.monotonic() > end:
                break
    return table


def save(out: Path, name: str, found: Finding, times: int) -> None:
    """Keep an input with what it did; of each finding only some."""
    if times > KEPT:
        return
    out.mkdir(parents=True, exist_ok=True)
    stem = f'{name.replace(" ", "_")}-{zlib.crc32(found.data):08x}'
    (out / f'{stem}.bin').write_bytes(found.data)
    (out / f'{stem}.txt').write_text(f'{found.what}\n{found.detail}')
    sys.stderr.write(f'{name}: {found.what} (kept as {out / stem}.bin)\n')


def main(argv: Sequence[str] | None = None) -> int:
    """Fuzz as the command line says; return 1 if anything was found."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or '').split('\n')[0]
    )
    parser.add_argument('--seconds', type=float, default=60)
    parser.add_argument('--only', choices=KINDS, action='append')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', default='fuzz_findings', metavar='FOLDER')
    args = parser.parse_args(argv)
    table = fuzz(
        args.only or list(KINDS), args.seconds, args.seed, Path(args.out)
    )
    print(f'{"kind":12} {"inputs":>9} {"read":>9} {"refused":>9}  findings')
    for name, row in table.items():
        print(
            f'{name:12} {row["inputs"]:9} {row["accepted"]:9} '
            f'{row["refused"]:9}  {sum(row["findings"].values())}'
        )
    total = Counter(
        {
            f'{name}: {what}': count
            for name, row in table.items()
            for what, count in row['findings'].items()
        }
    )
    for what, count in total.most_common():
        print(f'{count:6} × {what}')
    print(
        f'{sum(r["inputs"] for r in table.values())} inputs, '
        f'{sum(total.values())} findings'
    )
    return int(bool(total))


if __name__ == '__main__':
    sys.exit(main())
