"""Shards, and the index beside them, as anybody may write them."""

import http.server
import io
import json
import os
import random
import socket
import string
import subprocess
import tarfile
import threading

import pytest
from PIL import Image

from mmmoco.datasets import SampleAddress, TarShards
from mmmoco.datasets.shard_stream import UnreadableDataError
from mmmoco.datasets.tar_reader import TarReader
from mmmoco.datasets.tar_shards import open_url, scheme_of

LOAD = [dict(type='LoadRGB')]


def png():
    stream = io.BytesIO()
    Image.new('RGB', (8, 8), 'red').save(stream, 'png')
    return stream.getvalue()


PNG = png()


def entry(name, data=PNG, **facts):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in facts.items():
        setattr(info, key, value)
    return info, io.BytesIO(data)


def tar_of(*entries, form=tarfile.PAX_FORMAT):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode='w', format=form) as tar:
        for one in entries:
            tar.addfile(*one)
    return stream.getvalue()


def good(count=8):
    return tar_of(*(entry(f'{i:03}.png') for i in range(count)))


def with_field(header, start, stop, value):
    """Write into a header, and put its sum right."""
    data = bytearray(header)
    data[start:stop] = value.ljust(stop - start, b'\0')
    data[148:156] = b' ' * 8
    data[148:156] = b'%06o\0 ' % sum(data[:512])
    return bytes(data)


class OneWay(io.RawIOBase):
    """A stream that cannot go back, as from a URL."""

    def __init__(self, data):
        self.data = io.BytesIO(data)

    def read(self, size=-1):
        return self.data.read(size)

    def seek(self, *args):
        raise AssertionError('it went back')


def read_all(data, seekable):
    stream = io.BytesIO(data) if seekable else OneWay(data)
    tar, found = TarReader(stream, seekable), []
    for member in tar:
        content = None
        if member.kind == 'file' and member.size < 1 << 20:
            if seekable:
                content = data[member.offset :][: member.size]
            else:
                content = tar.content(member)
        found.append((member.name, member.kind, content))
    return found


def by_python(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [
            (
                m.name,
                'file' if m.isfile() else 'other',
                tar.extractfile(m).read() if m.isfile() else None,
            )
            for m in tar
        ]


@pytest.mark.parametrize('seed', range(30))
@pytest.mark.parametrize(
    'form', [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
)
def test_reads_what_python_writes(seed, form):
    draws = random.Random(seed)
    letters = string.ascii_letters + '._-/ '
    if form != tarfile.USTAR_FORMAT:
        letters += 'é早ß'
    entries = []
    for i in range(draws.randrange(1, 12)):
        longest = 90 if form == tarfile.USTAR_FORMAT else 400
        length = draws.randrange(longest)
        name = ''.join(draws.choices(letters, k=length)) + f'/{i}.png'
        name = name.lstrip('/').replace('//', '/')
        kind = draws.choice(
            [tarfile.REGTYPE] * 4
            + [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE]
            + [tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.CONTTYPE]
        )
        is_file = kind in (tarfile.REGTYPE, tarfile.CONTTYPE)
        data = draws.randbytes(draws.randrange(2000)) if is_file else b''
        link = 'x' * draws.randrange(200 if form != 0 else 90)
        entries.append(entry(name, data, type=kind, linkname=link, mtime=i))
    data = tar_of(*entries, form=form)
    for seekable in (True, False):
        found = [(n.rstrip('/'), k, c) for n, k, c in read_all(data, seekable)]
        assert found == by_python(data)


#: All bytes of a header that are more than text, and some of the others.
PLACES = [*range(0, 100, 20), *range(100, 345), *range(345, 512, 8)]


@pytest.mark.parametrize('form', [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_no_change_of_a_byte_does_more_than_damage(form):
    """In every header, with the sum put right, and sometimes not."""
    entries = entry('x' * 150 + '.png', b'abc'), entry('b.png', b'd' * 600)
    data = tar_of(*entries, form=form)
    draws = random.Random(0)
    for start in range(0, len(data) - 1024, 512):
        for place in PLACES:
            changed = bytearray(data)
            value = draws.choice([0, 0x80, 0xFF, draws.randrange(256)])
            changed[start + place] = value
            if draws.randrange(4):
                block = bytes(changed[start : start + 512])
                fixed = with_field(block, 511, 512, block[511:])
                changed[start : start + 512] = fixed
            read_or_refuse(bytes(changed))


def test_a_tar_that_is_cut_anywhere_is_noticed():
    data = tar_of(entry('a.png', b'abc'), entry('b.png', b'd' * 600))
    whole = len(data.rstrip(b'\0'))
    whole += -whole % 512  # What follows are end marks.
    names = {len(data): ['a.png', 'b.png']}
    for size in range(0, whole + 512, 7):
        for seekable in (True, False):
            with pytest.raises(OSError, match='tar|ends within'):
                read_all(data[:size], seekable)
    for size in (whole + 512, len(data)):
        found = [n for n, _, _ in read_all(data[:size], True)]
        assert found == names[len(data)]


def read_or_refuse(data):
    for seekable in (True, False):
        try:
            assert len(read_all(data, seekable)) <= 1 + len(data) // 512
        except OSError as error:
            assert 'tar' in str(error) or 'ends within' in str(error)


def a_header(**facts):
    info = tarfile.TarInfo('a.png')
    for key, value in facts.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT)


def pax(**headers):
    return tar_of(entry('a.png', pax_headers=headers), entry('b.png'))


BINARY = [
    b'\xff' * 12,
    b'\x80' + b'\xff' * 11,
    b'\x80' + bytes(3) + b'\xff' * 8,
]
HOSTILE = {
    'empty': b'',
    'noise': random.Random(0).randbytes(5000),
    'compressed': b'\x1f\x8b\x08' + bytes(2000),
    'cut': good()[:550],
    **{
        f'size {i}': with_field(a_header(size=len(PNG)), 124, 136, value)
        + bytes(4096)
        for i, value in enumerate([*BINARY, b'-0000000001', b'99999999999'])
    },
    'pax size −1': pax(size='-1'),
    'pax size text': pax(size='abc'),
    'pax size long': pax(size='9' * 5000),
    'pax size huge': pax(size='9' * 19),
    'sparse': pax(**{'GNU.sparse.map': '0,69', 'GNU.sparse.size': '9' * 13}),
    'sparse text': pax(**{'GNU.sparse.map': 'a,b'}),
    'old sparse': with_field(a_header(type=b'S', size=512), 482, 483, b'\1')
    + bytes(1024),
    'long name': a_header(type=b'L', size=7 << 30),
    'long header': a_header(type=b'x', size=7 << 30),
    'header without end': a_header(type=b'x', size=1 << 19) + b'1' * 512,
    'record without length': a_header(type=b'x', size=512) + b'x' * 512,
    'record of length 0': a_header(type=b'x', size=512) + b'0 a=b\n' * 85,
    'huge member': a_header(size=30 << 30),
    'label of letters': tar_of(entry('a.png'), entry('a.cls', b'one')),
    'label of a letter': tar_of(
        entry('a.png'), entry('a.cls', '\u0663'.encode())
    ),
    'label of 5000 digits': tar_of(
        entry('a.png'), entry('a.cls', b'9' * 5000)
    ),
    'label −1': tar_of(entry('a.png'), entry('a.cls', b'-1')),
    'names': tar_of(
        entry('\udcff\udcfe.png', b'bad'),
        entry('a\nb.png', b'bad'),
        entry('x' * 5000 + '.png', b'bad'),
        entry('a..png', b'bad'),
        form=tarfile.GNU_FORMAT,
    ),
}


@pytest.mark.parametrize('name', HOSTILE)
def test_a_bad_shard_costs_its_own_samples(tmp_path, name):
    (tmp_path / 'shards').mkdir()
    (tmp_path / 'shards/0.tar').write_bytes(good())
    (tmp_path / 'shards/1.tar').write_bytes(HOSTILE[name])
    data = TarShards(
        str(tmp_path / 'shards'), epoch_size=32, pipeline=LOAD, buffer_size=4
    )
    data.bad_files.move_to(tmp_path)
    for i in range(24):
        assert data[SampleAddress(i, 0, 0)]['img'].shape == (8, 8, 3)
    notes = data.bad_files.read()
    assert notes and all(str(tmp_path) in n.name for n in notes)
    for note in notes:
        (note.name + note.reason).encode('utf-8')
        assert len(note.reason) < 400


def test_a_shard_without_an_end_is_refused(tmp_path):
    """7 GB of a header, 30 GB of a member: nothing of it is read."""
    for kind in (b'x', b'L', b'0'):
        path = tmp_path / 'a.tar'
        with open(path, 'wb') as file:
            file.write(a_header(type=kind, size=30 << 30))
            file.truncate((30 << 30) + 10240)
        data = TarShards(str(path), epoch_size=4, pipeline=LOAD)
        with pytest.raises(UnreadableDataError):
            data[0]


def test_members_that_begin_with_a_dot_are_passed_over(tmp_path):
    (tmp_path / 'a.tar').write_bytes(
        tar_of(entry('._a.png', b'x'), entry('a.png'), entry('.b.png', b'x'))
    )
    data = TarShards(str(tmp_path), epoch_size=1, pipeline=LOAD)
    data.bad_files.move_to(tmp_path)
    for i in range(4):
        assert data[SampleAddress(i, 0, 0)]['img'].shape == (8, 8, 3)
    (note,) = data.bad_files.read()
    assert 'begins with a dot' in note.reason


@pytest.mark.parametrize('kind', ['pipe', 'folder', 'device', 'gone'])
def test_a_shard_that_is_exchanged_does_not_hang(tmp_path, kind):
    for name in ('0.tar', '1.tar'):
        (tmp_path / name).write_bytes(good())
    data = TarShards(str(tmp_path), epoch_size=16, pipeline=LOAD)
    path = tmp_path / '1.tar'
    path.unlink()
    if kind == 'pipe':
        os.mkfifo(path)
    elif kind == 'folder':
        path.mkdir()
    elif kind == 'device':
        os.symlink('/dev/zero', path)
    for i in range(16):
        assert data[SampleAddress(i, 0, 0)]['img'].shape == (8, 8, 3)


# --------------------------------------------------------------- names, URLs


@pytest.fixture
def nothing_starts(monkeypatch):
    """No process may be started, by any way that Python code has."""

    def refuse(*args, **kwargs):
        raise AssertionError(f'a process was started: {args}')

    monkeypatch.setattr(subprocess.Popen, '__init__', refuse)
    for name in ('system', 'popen', 'posix_spawn', 'execv', 'execve'):
        monkeypatch.setattr(os, name, refuse)


SCHEMES = ['pipe', 'file', 'ftp', 'ssh', 'scp', 'sftp', 'data', 'gopher', 'x']


def hostile_names():
    """Names that are more than a name of a file beside the index."""
    commands = ['id>pwned', 'touch pwned', '$(id)', '`id`', ';id', '|id']
    yield from (f'{s}:{c}' for s in ('pipe', 'data', 'file') for c in commands)
    yield from (f'{s}://{place}' for s in SCHEMES for place in ('x', '/etc/x'))
    yield from ('http://127.0.0.1:9/x.tar', '//host/x.tar', 'https:x.tar')
    for up in ('..', '.', '../x.tar', 'a/../x.tar', './x.tar', 'a/x.tar'):
        yield from (up, up.replace('/', '\\'))
    yield from ('/etc/passwd', '~/x.tar', '~root', '-rf', '--help', '')
    for odd in '\0\n\r\t\x7f\x1b\'"$`;|&<>*?{}[]#%\\:/':
        yield from (f'a{odd}.tar', f'{odd}a.tar')
    yield from ('\u2028.tar', '\ud800.tar', '.hidden.tar', 'x' * 10**6)
    yield from ('é' * 128, 'x' * 256)


@pytest.mark.parametrize('remote', [False, True])
def test_an_index_names_files_beside_it_and_nothing_else(
    tmp_path, monkeypatch, nothing_starts, remote
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'x.tar').write_bytes(good())
    for name in hostile_names():
        index = json.dumps({'shards': [{'name': name, 'samples': 1}]})
        (tmp_path / 'index.json').write_text(index)
        place = str(tmp_path)
        if remote:
            place = 'http://host/'
            monkeypatch.setattr(
                'mmmoco.datasets.tar_shards.open_url',
                lambda url: io.BytesIO(index.encode()),
            )
        with pytest.raises(ValueError, match='beside it') as error:
            TarShards(place, pipeline=LOAD)
        assert len(str(error.value)) < 700


@pytest.mark.parametrize(
    'count', [-5, 10**12, float('nan'), 1.5, '8', None, True, [8], 9]
)
def test_an_index_counts_what_a_shard_can_hold(tmp_path, count):
    (tmp_path / 'x.tar').write_bytes(bytes(8 * 512))
    index = json.dumps({'shards': [{'name': 'x.tar', 'samples': count}]})
    (tmp_path / 'index.json').write_text(index)
    with pytest.raises(ValueError, match=r'index\.json'):
        TarShards(str(tmp_path), pipeline=LOAD)


@pytest.mark.parametrize(
    'text',
    ['', '[', '[' * 100_000, '{"shards":' * 50_000, '[]', '5', '{"shards": 5}']
    + ['{"shards": [5]}', '{"shards": {"a": 1}}', '\xff' * 1000, 'NaN'],
)
def test_what_is_no_index_is_said_in_short(tmp_path, text):
    (tmp_path / 'index.json').write_bytes(text.encode('latin1'))
    with pytest.raises(ValueError, match='no index of shards') as error:
        TarShards(str(tmp_path), pipeline=LOAD)
    assert len(str(error.value)) < 500


def test_an_index_that_never_ends_is_refused(tmp_path):
    with open(tmp_path / 'index.json', 'wb') as file:
        file.truncate(60 << 30)
    with pytest.raises(OSError, match='max_bytes'):
        TarShards(str(tmp_path))


@pytest.mark.parametrize('place', ['*.tar', '.', 'list'])
def test_a_local_name_is_never_a_url(
    tmp_path, monkeypatch, nothing_starts, place
):
    monkeypatch.chdir(tmp_path)
    names = ['pipe:id>pwned;.tar', 'http:x.tar', 's3:x.tar', 'file:x.tar']
    for name in names:
        (tmp_path / name).write_bytes(good())
    found = names if place == 'list' else place
    data = TarShards(found, epoch_size=32, pipeline=LOAD)
    assert sorted(data.shards) == sorted(str(tmp_path / n) for n in names)
    for i in range(32):
        assert data[SampleAddress(i, 0, 0)]['img'].shape == (8, 8, 3)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names)


@pytest.mark.parametrize('scheme', SCHEMES)
def test_other_schemes_are_refused_by_name(scheme, nothing_starts):
    for place in (f'{scheme}://host/x.tar', f'{scheme.upper()}:///x/'):
        with pytest.raises(ValueError, match=f'{scheme}://.*http, https, s3'):
            TarShards(place, epoch_size=4)
    assert scheme_of(f'/a/{scheme}://x') is None


def test_a_redirection_leads_to_no_other_scheme(tmp_path):
    secret = tmp_path / 'secret'
    secret.write_text('secret')
    with socket.socket() as listening:
        listening.bind(('127.0.0.1', 0))
        listening.listen()
        port = listening.getsockname()[1]
        places = [f'file://{secret}', f'ftp://127.0.0.1:{port}/x', 'data:,x']

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(302)
                self.send_header('Location', places[int(self.path[1:])])
                self.end_headers()

            def log_message(self, *args):
                pass

        server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            for i in range(len(places)):
                url = f'http://127.0.0.1:{server.server_address[1]}/{i}'
                with pytest.raises(OSError, match='127.0.0.1'):
                    open_url(url)
        finally:
            server.shutdown()
            server.server_close()
        listening.settimeout(0.2)
        with pytest.raises(TimeoutError):
            listening.accept()
