"""Pickles written by hand, files around them, and what may come out."""

import io
import pickle
import struct
import zipfile
from collections import Counter, OrderedDict

import numpy as np
import torch
from hypothesis import strategies as st
from mmengine.logging import HistoryBuffer

START = b'\x80\x02'

# Single operations


def name(module, attribute):
    return b'c' + module.encode() + b'\n' + attribute.encode() + b'\n'


def text(value):
    raw = value.encode('utf-8', 'surrogatepass')
    return b'X' + struct.pack('<I', len(raw)) + raw


def number(value):
    raw = pickle.encode_long(value)
    return b'\x8b' + struct.pack('<i', len(raw)) + raw


def raw_bytes(value):
    return b'B' + struct.pack('<I', len(value)) + value


def tuple_of(*items):
    return b'(' + b''.join(items) + b't'


def dict_of(*keys_and_values):
    return b'}(' + b''.join(keys_and_values) + b'u'


def call(function, *arguments):
    return function + tuple_of(*arguments) + b'R'


def pickled(body):
    return START + body + b'.'


def weights(body):
    """The pickle of a checkpoint that holds something more."""
    return pickled(dict_of(text('state_dict'), b'}', text('x'), body))


def storage(key='0', kind='FloatStorage', numel=1, legacy=False):
    parts = [text('storage'), name('torch', kind), text(key), text('cpu')]
    parts.append(number(numel))
    return tuple_of(*parts, *([b'N'] if legacy else [])) + b'Q'


def tensor(offset, size, stride, **facts):
    return call(
        name('torch._utils', '_rebuild_tensor_v2'),
        storage(**facts),
        number(offset),
        tuple_of(*map(number, size)),
        tuple_of(*map(number, stride)),
        b'\x89',
        call(name('collections', 'OrderedDict')),
    )


def array(dtype, shape, raw, order='<'):
    """An array as numpy pickles it, with any content."""
    described = call(name('numpy', 'dtype'), text(dtype), b'\x89', b'\x88')
    state = tuple_of(number(3), text(order), b'NNN', number(-1), number(-1))
    state = state[:-1] + number(0) + b't'
    return (
        call(
            name('numpy._core.multiarray', '_reconstruct'),
            name('numpy', 'ndarray'),
            tuple_of(number(0)),
            raw_bytes(b'b'),
        )
        + b'('
        + number(1)
        + tuple_of(*map(number, shape))
        + described
        + state
        + b'b'
        + b'\x89'
        + raw_bytes(raw)
        + b'tb'
    )


# Files


def archive(body, storages=(), extra=(), order=b'little', **zip_options):
    """An archive as torch writes it, around a pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w', **zip_options) as stored:
        stored.writestr('archive/data.pkl', body)
        stored.writestr('archive/byteorder', order)
        for key, data in dict(storages).items():
            stored.writestr(f'archive/data/{key}', data)
        stored.writestr('archive/version', '3\n')
        for path, data in extra:
            stored.writestr(path, data)
    return file.getvalue()


def legacy(body, keys=(), storages=b'', little_endian=True):
    """A file of torch before 1.6: pickles, then the storages."""
    parts = [
        0x1950A86A20F9469CFC6C,
        1001,
        {'protocol_version': 1001, 'little_endian': little_endian},
    ]
    head = b''.join(pickle.dumps(part, protocol=2) for part in parts)
    return head + body + pickle.dumps(list(keys), protocol=2) + storages


# What may come out

ATOMS = (type(None), bool, int, float, complex, str, bytes)
TORCH = (torch.dtype, torch.device, torch.Size)


def require_plain(value):
    """Assert that only data of these exact types are in a value."""
    kind = type(value)
    if kind in ATOMS or kind in TORCH:
        return
    if kind is torch.Tensor:
        assert not vars(value) and not value.requires_grad
        assert value.grad_fn is None
        storage = value.untyped_storage()
        size, stride = value.size(), value.stride()
        if value.numel():
            last = sum((n - 1) * s for n, s in zip(size, stride, strict=True))
            reached = value.storage_offset() + last + 1
            assert reached * value.element_size() <= storage.nbytes()
    elif kind is np.ndarray:
        assert value.dtype.kind in 'biufcSU' and value.flags.owndata
    elif isinstance(value, np.generic | np.dtype):
        assert kind.__module__.split('.')[0] == 'numpy'
        assert np.dtype(value.dtype if kind is np.generic else value)
    elif kind is HistoryBuffer:
        fresh = vars(HistoryBuffer(max_length=3))
        assert set(vars(value)) == set(fresh)
        assert type(value.max_length) is int
        for column in value.data:
            require_plain(column)
    elif kind in (list, tuple, set, frozenset):
        for item in value:
            require_plain(item)
    else:
        assert kind in (dict, OrderedDict, Counter), kind
        for key, item in value.items():
            require_plain(key)
            require_plain(item)
        if kind is not dict:
            attributes = dict(vars(value))
            versions = attributes.pop('_metadata', {})
            assert not attributes and kind is not Counter or not versions
            require_plain(versions)


# Random pickles

ALLOWED = [
    ('collections', 'OrderedDict'),
    ('collections', 'Counter'),
    ('builtins', 'set'),
    ('__builtin__', 'set'),
    ('builtins', 'frozenset'),
    ('builtins', 'bytes'),
    ('builtins', 'complex'),
    ('builtins', 'getattr'),
    ('_codecs', 'encode'),
    ('argparse', 'Namespace'),
    ('mmengine.logging.history_buffer', 'HistoryBuffer'),
    ('numpy', 'ndarray'),
    ('numpy', 'dtype'),
    ('numpy._core.multiarray', '_reconstruct'),
    ('numpy.core.multiarray', 'scalar'),
    ('torch', 'float32'),
    ('torch', 'FloatStorage'),
    ('torch', 'BoolStorage'),
    ('torch.storage', 'UntypedStorage'),
    ('torch', 'Size'),
    ('torch', 'device'),
    ('torch._utils', '_rebuild_tensor_v2'),
    ('torch._utils', '_rebuild_tensor_v3'),
    ('torch._utils', '_rebuild_parameter'),
]
FORBIDDEN = [
    ('os', 'system'),
    ('builtins', 'exec'),
    ('builtins', 'bytearray'),
    ('builtins', 'setattr'),
    ('torch', 'Tensor'),
    ('torch.nn.parameter', 'Parameter'),
    ('torch.storage', '_load_from_bytes'),
    ('numpy', 'memmap'),
    ('operator', 'attrgetter'),
]
WORDS = [
    *('_metadata', '__class__', '__dict__', 'pop', 'config', 'max_length'),
    *('_log_history', '_count_history', 'mean', 'latin1', 'f8', 'O8', 'b1'),
    *('U3', '<', '>', 'cpu', 'storage', '0', 'cuda:0', '\ud800'),
]

_ints = st.sampled_from([0, 1, 2, 3, -1, 2**31, 2**62, 2**63, 10**20])
_values = st.one_of(
    _ints.map(number),
    st.sampled_from(WORDS).map(text),
    st.sampled_from([b'', b'\1', bytes(8), b'\xff' * 12]).map(raw_bytes),
    st.sampled_from([b'N', b'\x88', b'\x89', b')', b']', b'}', b'\x8f']),
    st.just(b'G' + struct.pack('>d', float('nan'))),
    st.sampled_from([b'U\x02\xffa', b"S'a'\n", b'I01\n', b'I7\n', b'L9L\n']),
)
_names = st.one_of(
    st.sampled_from(ALLOWED).map(lambda pair: name(*pair)),
    st.sampled_from(ALLOWED).map(
        lambda pair: text(pair[0]) + text(pair[1]) + b'\x93'
    ),
)
_forbidden = st.sampled_from(FORBIDDEN).map(lambda pair: name(*pair))
#: Each would be seen by python's audit if it were really called.
_armed = st.sampled_from(
    [
        call(name('posix', 'listdir'), text('.')),
        call(name('builtins', 'exec'), text('pass')),
        call(name('builtins', 'eval'), text('1')),
        call(name('builtins', 'compile'), text('1'), text('a'), text('eval')),
        b'(' + name('os', 'listdir') + text('.') + b'o',
        b'(' + text('.') + b'ios\nlistdir\n',
    ]
)
_memo = st.one_of(
    st.integers(0, 3).map(lambda i: b'q' + bytes([i])),
    st.integers(0, 3).map(lambda i: b'h' + bytes([i])),
    st.sampled_from([b'\x94', b'r\xff\xff\xff\x7f', b'2', b'0', b'1']),
)
_numbers = st.lists(st.sampled_from([0, 1, 2, 4, -1, 2**40]), max_size=3)
_arrays = st.builds(
    array,
    st.sampled_from(['f8', 'i1', 'b1', 'U2', 'S3', 'O8', 'V4', 'c16', 'i3']),
    _numbers,
    st.sampled_from([b'', bytes(8), b'\xff' * 8, bytes(64)]),
    st.sampled_from(['<', '>', '|', '?']),
)
_HISTORY = name('mmengine.logging.history_buffer', 'HistoryBuffer')
_column = array('f8', [2], bytes(16))
#: Each a whole value, of the kinds that honest files hold.
HONEST = [
    *(number(3), text('a'), text('config'), b'N', b'\x88', b']', b'}', b')'),
    call(name('collections', 'OrderedDict')),
    call(name('collections', 'OrderedDict'))
    + dict_of(
        text('_metadata'),
        call(name('collections', 'OrderedDict'))
        + b'('
        + text('')
        + dict_of(text('version'), number(2))
        + b'u',
    )
    + b'b',
    call(name('collections', 'Counter')) + text('a') + number(1) + b's',
    call(name('builtins', 'set'), b'](' + number(1) + text('b') + b'e'),
    call(name('builtins', 'complex'), b'G' + bytes(8), b'G' + bytes(8)),
    call(name('_codecs', 'encode'), text('\xff'), text('latin1')),
    call(name('torch', 'Size'), tuple_of(number(1), number(2))),
    call(name('torch', 'device'), text('cuda'), number(0)),
    name('torch', 'float32'),
    name('argparse', 'Namespace') + b')\x81' + dict_of(text('a'), b'N') + b'b',
    array('f4', [2, 2], bytes(16)),
    array('U1', [1], b'a\0\0\0'),
    _HISTORY
    + b')\x81'
    + dict_of(
        *(text('_log_history'), _column, text('_count_history'), _column),
        *(text('max_length'), number(9)),
    )
    + b'b',
]


def _mostly(one, other):
    # one_of would deal evenly among all the parts of both.
    return st.integers(0, 7).flatmap(lambda n: one if n else other)


def tensors(old):
    """Views inside and outside of a storage of 16 bytes."""
    anywhere = st.builds(
        tensor,
        st.sampled_from([0, 1, 5, -1, 2**62]),
        _numbers,
        _numbers,
        numel=st.sampled_from([0, 1, 4, -1, 2**50]),
        kind=st.sampled_from(['FloatStorage', 'BoolStorage', 'ByteStorage']),
        legacy=st.just(old),
    )
    fitting = st.sampled_from(
        [
            tensor(0, [4], [1], numel=4, legacy=old),
            tensor(1, [1, 3], [9, 1], numel=4, legacy=old),
            tensor(0, [2, 2], [2, 1], numel=4, legacy=old),
        ]
    )
    return _mostly(fitting, anywhere)


def _over(parts):
    """Operations over what smaller programs leave on the stack."""
    several = st.lists(parts, max_size=3).map(b''.join)
    even = st.lists(
        st.tuples(st.sampled_from(HONEST[:3]), parts), max_size=2
    ).map(lambda pairs: b''.join(map(b''.join, pairs)))
    functions = st.one_of(_names, _names, _names, _forbidden)
    whole = st.one_of(
        several.map(lambda p: b'(' + p + b't'),
        several.map(lambda p: b'](' + p + b'e'),
        even.map(lambda p: b'}(' + p + b'u'),
        even.map(
            lambda p: name('argparse', 'Namespace') + b')\x81}(' + p + b'ub'
        ),
        st.tuples(parts, parts).map(lambda p: p[0] + p[1] + b'\x86'),
    )
    broken = st.one_of(
        several,
        several.map(lambda p: b'(' + p + b'l'),
        several.map(lambda p: b'(' + p + b'd'),
        several.map(lambda p: b'}(' + p + b'u'),
        several.map(lambda p: b'\x8f(' + p + b'\x90'),
        several.map(lambda p: b'(' + p + b'\x91'),
        st.tuples(parts, parts).map(lambda p: b'}' + p[0] + p[1] + b's'),
        st.tuples(parts, parts).map(lambda p: p[0] + p[1] + b'b'),
        st.tuples(functions, several, st.sampled_from([b'R', b'\x81'])).map(
            lambda p: p[0] + b'(' + p[1] + b't' + p[2]
        ),
        st.tuples(functions, several, parts).map(
            lambda p: p[0] + b'(' + p[1] + b'tR' + p[2] + b'b'
        ),
        st.tuples(functions, several).map(lambda p: b'(' + p[0] + p[1] + b'o'),
        st.tuples(st.sampled_from(ALLOWED + FORBIDDEN), several).map(
            lambda p: b'(' + p[1] + f'i{p[0][0]}\n{p[0][1]}\n'.encode()
        ),
        parts.map(lambda p: p + b'Q'),
        several.map(lambda p: b'(' + p + b'tQ'),
    )
    return _mostly(whole, broken)


def programs(old):
    """Allowed operations over allowed and forbidden names, in any order.

    Most are as honest files have them, with something wrong in some place.
    """
    honest = st.one_of(st.sampled_from(HONEST), tensors(old))
    anything = st.one_of(_values, _names, _memo, _arrays, _armed)
    return st.recursive(_mostly(honest, anything), _over, max_leaves=9)
