"""No checkpoint runs code, and none takes more than it brings."""

import argparse
import collections
import io
import os
import pickle
import resource
import struct
import sys
import time
import zipfile
import zlib

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.logging import HistoryBuffer
from torch import nn

from mmmoco import plain_pickle
from mmmoco.engine.checkpoint_io import CheckpointError, UnsafeCheckpointError
from mmmoco.engine.checkpoint_io.reading import read, read_any
from mmmoco.engine.checkpoint_io.restricted import KNOWN

from . import crafted
from .crafted import (
    archive,
    array,
    call,
    dict_of,
    legacy,
    name,
    number,
    pickled,
    tensor,
    text,
    tuple_of,
    weights,
)


def repeatable(examples):
    """The same examples in every run."""
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def read_bytes(content):
    return read_any(io.BytesIO(content))


# What must not happen, seen by python's own audit

CODE = ('exec', 'compile', 'os.', 'subprocess.', 'pickle.', 'ctypes.')
CODE += ('object.__setattr__', 'object.__delattr__', 'code.', 'socket.')
CODE += ('shutil.', 'import', 'open')
_seen = []
_watching = False


def _audit(event, arguments):
    if _watching and event.startswith(CODE):
        _seen.append((event, arguments))


@pytest.fixture(scope='module')
def watch():
    """Return a function that calls another and fails if code ran in it."""
    sys.addaudithook(_audit)
    torch.zeros(1).numpy()  # what is imported late is imported now

    def call_watched(function, *arguments):
        global _watching
        _seen.clear()
        _watching = True
        try:
            return function(*arguments)
        finally:
            _watching = False
            assert not _seen

    yield call_watched


def test_the_watch_sees_what_it_must(watch, tmp_path):
    class Call:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'made'),)

    for content in (pickle.dumps(Call()), pickle.dumps(HistoryBuffer())):
        with pytest.raises(AssertionError):
            watch(pickle.loads, content)


# Random programs

PACKED = {
    'archive': lambda body: archive(weights(body), {'0': bytes(16)}),
    'old': lambda body: legacy(
        # The storage is used at least once, else it would be one too many.
        weights(tensor(0, [4], [1], numel=4, legacy=True) + b'0' + body),
        ['0'],
        struct.pack('<q', 4) + bytes(16),
    ),
    'plain': pickled,
}


@pytest.mark.parametrize('packed', PACKED)
def test_random_pickles_give_plain_data_or_an_error(packed, watch):
    """Whatever the operations, the names and their order."""
    outcomes = collections.Counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    @repeatable(700)
    @given(program=crafted.programs(packed == 'old'))
    def attack(program):
        content = PACKED[packed](program)
        start = time.monotonic()
        try:
            loaded = watch(read_bytes, content)
        except CheckpointError as error:
            assert '\n' not in str(error)
            outcomes[type(error).__name__] += 1
        else:
            crafted.require_plain(loaded)
            outcomes['read'] += 1
        assert time.monotonic() - start < 20

    attack()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 300_000  # kB
    # The programs are neither all nonsense nor all harmless.
    assert len(outcomes) == 3 and min(outcomes.values()) > 15, outcomes


def test_every_name_leads_to_a_function_of_ours():
    for known, entry in KNOWN.items():
        if isinstance(entry, torch.dtype):
            continue
        assert isinstance(entry, plain_pickle.Named), known
        if isinstance(entry, plain_pickle.Builder):
            assert entry.build.__module__.startswith('mmmoco.'), known


def test_every_operation_of_pickle_is_known_or_refused():
    """Those that come with a new python are refused too."""
    import pickletools

    done = {*plain_pickle._PUSHED, *plain_pickle._MADE}
    done |= {*plain_pickle._SHORT_TUPLES, *plain_pickle._ACTIONS}
    done |= {'PROTO', 'FRAME', 'STOP'}
    refused = {'EXT1', 'EXT2', 'EXT4', 'PERSID', 'BYTEARRAY8'}
    refused |= {'NEXT_BUFFER', 'READONLY_BUFFER'}
    assert done | refused >= {code.name for code in pickletools.opcodes}
    assert not done & refused


# Attributes, classes, functions


def state(target, *values):
    return target + dict_of(*values) + b'b'


COUNTER = call(name('collections', 'Counter'))
ORDERED = call(name('collections', 'OrderedDict'))
NAMESPACE = name('argparse', 'Namespace') + b')\x81'
FUNCTION = name('builtins', 'set')
SLOTS = b'N' + dict_of(text('__class__'), name('numpy', 'ndarray')) + b'\x86b'
ARMED = {
    'attribute of a Counter': state(COUNTER, text('pop'), FUNCTION),
    'attribute of an OrderedDict': state(ORDERED, text('pop'), FUNCTION),
    'attribute beside _metadata': state(
        ORDERED, text('_metadata'), ORDERED, text('pop'), FUNCTION
    ),
    'function in _metadata': state(ORDERED, text('_metadata'), FUNCTION),
    'object in _metadata': state(
        ORDERED,
        text('_metadata'),
        dict_of(text(''), dict_of(text('version'), b']')),
    ),
    'attribute of a dict': state(b'}', text('pop'), FUNCTION),
    'attribute of a list': state(b']', text('append'), FUNCTION),
    'attribute of a function': state(FUNCTION, text('__code__'), b'N'),
    'attribute of a tensor': state(tensor(0, [1], [1]), text('x'), b'N'),
    'class of a Namespace': NAMESPACE + SLOTS,
    'function in a Namespace': state(NAMESPACE, text('pop'), FUNCTION),
    'function as a value': FUNCTION,
    'function in a tuple': tuple_of(FUNCTION),
    'function as a key': dict_of(FUNCTION, b'N'),
    'function in a set': b'\x8f(' + FUNCTION + b'\x90',
    'function in a key': dict_of(tuple_of(FUNCTION), b'N'),
    'array as a key': dict_of(array('f8', [1], bytes(8)), b'N'),
    'class as a value': name('numpy', 'ndarray'),
    'storage as a value': crafted.storage(),
    'dtype of objects': array('O8', [1], bytes(8)),
    'record': array('V8', [1], bytes(8)),
    'bytearray': call(name('builtins', 'bytearray'), number(20 * 10**9)),
    'bytearray in place': b'\x96' + struct.pack('<Q', 1) + b'a',
    'real Tensor': call(name('torch', 'Tensor'), number(10**10)),
    'real storage': call(name('torch', 'UntypedStorage'), number(3 * 10**10)),
    'extension': b'\x82\x01',
    'statistics of others': call(
        name('builtins', 'getattr'), NAMESPACE, text('__init__')
    ),
    'hidden method': call(
        name('builtins', 'getattr'),
        name('mmengine.logging.history_buffer', 'HistoryBuffer'),
        text('__init__'),
    ),
}


@pytest.mark.parametrize('armed', ARMED)
def test_what_could_become_code_is_refused(armed, watch):
    body = weights(ARMED[armed])
    contents = [archive(body, {'0': bytes(4)}), body]
    for content in contents:
        with pytest.raises(UnsafeCheckpointError, match='would need `'):
            watch(read_bytes, content)


def test_nothing_of_a_file_becomes_a_method(tmp_path):
    """The file's own `pop` would keep the config text for mmengine."""

    class Meta:
        def __reduce__(self):
            meta = {'config': 'import os', 'epoch': 1, 'iter': 1}
            pop = {'pop': set}
            return collections.Counter, (), pop, None, iter(meta.items())

    torch.save({'state_dict': {}, 'meta': Meta()}, tmp_path / 'a.pth')
    with pytest.raises(UnsafeCheckpointError, match='attributes of a Counter'):
        read(tmp_path / 'a.pth')
    for meta in (
        {'config': 'import os'},
        collections.OrderedDict(config='import os'),
        argparse.Namespace(config='import os'),
    ):
        torch.save({'state_dict': {}, 'meta': meta}, tmp_path / 'a.pth')
        assert read(tmp_path / 'a.pth')['meta'] == {'config_text': 'import os'}


# More than the file brings


def shared_tuples(levels):
    """Few bytes that stand for 2^levels values."""
    parts = [b')q\0']
    for level in range(levels):
        twice = b'h' + bytes([level])
        parts.append(b'0' + twice + twice + b'\x86q' + bytes([level + 1]))
    return b''.join(parts)


def shared_lists(levels):
    parts = [b']q\0']
    for level in range(levels):
        twice = b'h' + bytes([level])
        parts.append(b'0](' + twice + twice + b'eq' + bytes([level + 1]))
    return b''.join(parts)


def of_tensor(*arguments, data=bytes(4), **facts):
    return archive(weights(tensor(*arguments, **facts)), {'0': data})


def zipped(compression):
    return archive(weights(b'N'), compression=compression)


def changed(content, old, new):
    assert old in content and len(old) == len(new)
    return content.replace(old, new)


def twice_the_same_bytes():
    """Two members in one place: more is read than the file has."""
    content = archive(weights(b'N'), {'0': bytes(64), '1': bytes(64)})
    with zipfile.ZipFile(io.BytesIO(content)) as stored:
        first = stored.getinfo('archive/data/0').header_offset
        second = stored.getinfo('archive/data/1').header_offset
    start = content.rindex(b'PK\1\2', 0, content.rindex(b'archive/data/1'))
    entry = bytearray(content[start:])
    entry[42:46] = struct.pack('<I', first)
    assert first != second
    return content[:start] + bytes(entry)


def lying_size():
    content = bytearray(of_tensor(0, [1], [1]))
    start = content.rindex(b'PK\1\2', 0, content.rindex(b'archive/data/0'))
    content[start + 20 : start + 28] = struct.pack('<II', 2**31, 2**31)
    return bytes(content)


GREEDY = {
    'shared tuples': (archive(weights(shared_tuples(60))), 'stands for more'),
    'shared tuples as a key': (
        archive(weights(dict_of(shared_tuples(60), b'N'))),
        'key is too long',
    ),
    'shared lists': (archive(weights(shared_lists(60))), 'stands for more'),
    'itself': (pickled(b'}q\0' + text('a') + b'h\0s'), 'contains itself'),
    'deep': (pickled(b']' * 5000 + b'a' * 4999), 'nested deeper'),
    'stride 0': (of_tensor(0, [10**10], [0]), 'outside its storage'),
    'offset beyond': (of_tensor(10**6, [1], [1]), 'outside its storage'),
    'size beyond': (of_tensor(0, [2], [1]), 'outside its storage'),
    'stride beyond': (of_tensor(0, [2], [9]), 'outside its storage'),
    'offset below': (of_tensor(-1, [1], [1]), 'offset -1'),
    'size below': (of_tensor(0, [-1], [1]), 'has size'),
    'stride below': (of_tensor(0, [1], [-1]), 'stride'),
    'product': (of_tensor(0, [2**40, 2**40, 0], [0, 0, 0]), 'outside'),
    'strides lack': (of_tensor(0, [1, 1], [1]), 'has size'),
    'storage of another size': (of_tensor(0, [1], [1], numel=2), 'the size'),
    'storage below': (of_tensor(0, [1], [1], numel=-1), 'no valid key'),
    'no truth': (
        of_tensor(0, [4], [1], numel=4, kind='BoolStorage', data=b'\1\2\0\1'),
        'truth value',
    ),
    'storage elsewhere': (
        of_tensor(0, [1], [1], key='../../../etc/passwd'),
        'lacks',
    ),
    'compressed': (zipped(zipfile.ZIP_DEFLATED), 'is compressed'),
    'there twice': (
        archive(weights(b'N'), extra=[('archive/data.pkl', b'')]),
        'there twice',
    ),
    'outside of the root': (
        archive(weights(b'N'), extra=[('../../escape', b'')]),
        'not below',
    ),
    'upwards': (
        archive(weights(b'N'), extra=[('archive/../../escape', b'')]),
        'not below',
    ),
    'one place for two': (twice_the_same_bytes(), 'no place of its own'),
    'lying size': (lying_size(), 'cut off|no place of its own'),
    'big-endian': (archive(weights(b'N'), order=b'big'), 'big-endian'),
    'big-endian, old': (
        legacy(weights(b'N'), little_endian=False),
        'big-endian',
    ),
    'old storage beyond the file': (
        legacy(
            weights(tensor(0, [1], [1], numel=8 * 10**9, legacy=True)),
            ['0'],
            struct.pack('<q', 8 * 10**9),
        ),
        'the whole file',
    ),
    'old storage cut off': (
        legacy(
            weights(tensor(0, [4], [1], numel=4, legacy=True)),
            ['0'],
            struct.pack('<q', 4) + bytes(15),
        ),
        'cut off',
    ),
    'old storage of another size': (
        legacy(
            weights(tensor(0, [4], [1], numel=4, legacy=True)),
            ['0'],
            struct.pack('<q', 5) + bytes(16),
        ),
        'has 5',
    ),
    'old storage missing': (
        legacy(weights(tensor(0, [4], [1], numel=4, legacy=True))),
        'does not hold the storages',
    ),
    'long text': (pickled(b'X\xff\xff\xff\x7fabc'), 'cut off'),
    'long bytes': (pickled(b'\x8e' + b'\xff' * 7 + b'\x7fabc'), 'cut off'),
    'large place': (pickled(b'Nr\xff\xff\xff\x7f0h\1'), 'KeyError'),
    'array beyond': (pickled(array('f8', [10**9], bytes(8))), 'too small'),
    'array below': (pickled(array('f8', [-1], bytes(8))), 'no valid shape'),
    'array of no text': (
        pickled(array('U2', [1], b'\xff' * 8)),
        'no characters',
    ),
    'array with more data': (pickled(array('f8', [1], bytes(16))), 'more'),
    'large number': (pickled(number(2**1025)), 'too large'),
    'large number as a key': (
        pickled(dict_of(number(2**70), b'N')),
        'too large',
    ),
}


@pytest.mark.parametrize('greedy', GREEDY)
def test_no_file_takes_more_than_it_brings(greedy):
    content, words = GREEDY[greedy]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.monotonic()
    with pytest.raises(CheckpointError, match=words) as error:
        read_bytes(content)
    assert not isinstance(error.value, UnsafeCheckpointError)
    assert '\n' not in str(error.value)
    assert time.monotonic() - start < 30
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 200_000  # kB


def test_the_number_of_operations_and_values_is_limited(monkeypatch):
    monkeypatch.setattr(plain_pickle, 'MOST_OPERATIONS', 5000)
    monkeypatch.setattr(plain_pickle, 'MOST_VALUES', 5000)
    with pytest.raises(CheckpointError, match='5,000 operations'):
        read_bytes(pickled(b'N0' * 3000))
    with pytest.raises(CheckpointError, match='5,000 values'):
        read_bytes(pickled(shared_lists(13)))
    read_bytes(pickled(shared_lists(9)))


@pytest.mark.parametrize(
    'content',
    [
        pickled(name('os' * 9000, 'system')),
        pickled(name('os', 'a\x1b[2J\x07')),
        pickled(array('f8' * 9000, [1], bytes(8))),
        archive(pickled(b'N'), extra=[('x' * 60_000, b'')]),
        archive(pickled(tensor(0, [1] * 9000, [1]))),
        archive(pickled(crafted.storage(key='0' * 9000))),
    ],
)
def test_a_message_is_short_whatever_the_file_says(content):
    with pytest.raises(CheckpointError) as error:
        read_bytes(content)
    assert len(str(error.value)) < 600 and str(error.value).isprintable()


@repeatable(400)
@given(
    numel=st.integers(0, 12),
    offset=st.integers(-2, 14),
    shape=st.lists(
        st.tuples(st.integers(-1, 5), st.integers(-1, 5)), max_size=3
    ),
    old=st.booleans(),
)
def test_a_view_is_what_torch_makes_of_it_or_refused(
    numel, offset, shape, old
):
    """Against torch itself, which checks the bounds of as_strided."""
    size = [pair[0] for pair in shape]
    stride = [pair[1] for pair in shape]
    data = torch.arange(numel, dtype=torch.float32)
    body = weights(tensor(offset, size, stride, numel=numel, legacy=old))
    raw = data.numpy().tobytes()
    if old:
        content = legacy(body, ['0'], struct.pack('<q', numel) + raw)
    else:
        content = archive(body, {'0': raw})
    try:
        expected = data.as_strided(size, stride, offset)
    except RuntimeError:
        expected = None
    try:
        found = read_bytes(content)['x']
    except CheckpointError:
        # Stricter only where there is nothing to see.
        assert expected is None or not expected.numel()
        return
    assert expected is not None
    assert found.stride() == expected.stride()
    assert torch.equal(found, expected)


# Damage


def small_checkpoint(old):
    file = io.BytesIO()
    layer = nn.Linear(2, 2)
    torch.save(
        {
            'state_dict': layer.state_dict(),
            'meta': {'epoch': 1, 'seed': None},
            'scalars': HistoryBuffer([1.0], [1]),
        },
        file,
        _use_new_zipfile_serialization=not old,
    )
    return file.getvalue()


@pytest.mark.parametrize('old', [False, True])
def test_a_file_cut_anywhere_is_an_error(old):
    content = small_checkpoint(old)
    for end in range(1, len(content), 3):
        with pytest.raises(CheckpointError):
            read_bytes(content[:end])


@pytest.mark.parametrize('old', [False, True])
def test_a_changed_byte_is_an_error_or_plain(old):
    """In an archive, the weights and the pickle have checksums."""
    content = small_checkpoint(old)
    for place in range(0, len(content), 2):
        spoilt = bytearray(content)
        spoilt[place] ^= 0x55
        try:
            crafted.require_plain(read_bytes(bytes(spoilt)))
        except CheckpointError:
            continue
    original = read_bytes(content)
    if not old:
        with zipfile.ZipFile(io.BytesIO(content)) as stored:
            entry = stored.getinfo('archive/data/0')
        raw = original['state_dict']['weight'].numpy().tobytes()
        assert zlib.crc32(raw) == entry.CRC
        spoilt = bytearray(content)
        spoilt[content.index(raw)] ^= 1
        with pytest.raises(CheckpointError, match='checksum'):
            read_bytes(bytes(spoilt))
