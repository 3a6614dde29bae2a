"""Honest checkpoints come back bit for bit."""

import argparse
import collections
import io
import pickle
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mmengine.logging import HistoryBuffer
from torch import nn

from mmmoco.engine.checkpoint_io.reading import read, read_any

from . import crafted
from .crafted import (
    array,
    dict_of,
    pickled,
    raw_bytes,
)
from .test_checkpoints import read_bytes, repeatable

TYPED = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.complex128, torch.complex64, torch.bool, torch.uint8),
    *(torch.int64, torch.int32, torch.int16, torch.int8),
]
#: Those that torch saves as bytes, in archives only, from 2.3 on.
UNTYPED = [
    getattr(torch, name)
    for name in ('float8_e4m3fn', 'float8_e5m2', 'uint64', 'uint32', 'uint16')
    if hasattr(torch, 'uint64')
]


def numbers_of(dtype):
    raw = torch.arange(96, dtype=torch.uint8)
    if dtype == torch.bool:
        return raw % 2 == 1
    return raw.view(dtype)


def bits(value):
    if value.dtype == torch.bool:
        return value.contiguous().numpy().tobytes()
    flat = value.contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()


def require_same(one, other):
    """The same, as far as data go: to the bit, with what is shared."""
    if isinstance(other, argparse.Namespace):
        other = vars(other)
    if isinstance(other, torch.Tensor):
        assert type(one) is torch.Tensor
        assert one.dtype == other.dtype and one.size() == other.size()
        assert one.stride() == other.stride()
        assert one.storage_offset() == other.storage_offset()
        assert bits(one) == bits(other.detach())
        return
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            require_same(one[key], other[key])
        assert getattr(one, '_metadata', 0) == getattr(other, '_metadata', 0)
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            require_same(*pair)
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype and one.shape == other.shape
        assert one.strides == other.strides
        assert one.tobytes() == other.tobytes()
    elif isinstance(one, HistoryBuffer):
        require_same(list(one.data), list(other.data))
        assert one.max_length == other.max_length
    else:
        assert one == other or one != one


def as_written(content, old, protocol):
    file = io.BytesIO()
    torch.save(
        content,
        file,
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=not old,
    )
    return file.getvalue()


LAYOUTS = [(False, 2), (False, 4), (True, 2), (True, 4)]


@pytest.mark.parametrize(('old', 'protocol'), LAYOUTS)
def test_tensors_of_all_kinds(old, protocol):
    square = torch.arange(12.0).view(3, 4)
    dtypes = TYPED if old else TYPED + UNTYPED
    content = {
        'dtypes': {str(d): numbers_of(d) for d in dtypes},
        'transposed': square.t(),
        'part': square[1:, ::2],
        'same memory': [square, square[0]],
        'expanded': torch.ones(1).expand(50),
        'empty': torch.zeros(0, 3),
        'number': torch.tensor(3),
        'parameter': nn.Parameter(torch.ones(2)),
        'with gradient': torch.ones(2, requires_grad=True),
        'size': torch.Size([1, 2]),
        'dtype': torch.float32,
        'device': torch.device('cuda', 1),
        'bits': torch.tensor([float('nan'), -0.0, float('inf')]),
    }
    raw = as_written(content, old, protocol)
    found = read_bytes(raw)
    expected = torch.load(io.BytesIO(raw), weights_only=False)
    require_same(found, expected)
    crafted.require_plain(found)
    whole, part = found['same memory']
    part[0] = 7.0
    assert whole[0, 0] == 7.0


@pytest.mark.parametrize(('old', 'protocol'), LAYOUTS)
def test_files_of_the_code_bases_that_are_read_here(old, protocol):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    sgd = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    net(torch.ones(2, 3, 8, 8)).sum().backward()
    sgd.step()
    adam = torch.optim.AdamW(net.parameters())
    adam.step()
    state_dict = net.state_dict()
    files = {
        'MoCo': {
            'epoch': 200,
            'arch': 'resnet50',
            'state_dict': nn.DataParallel(net).state_dict(),
            'optimizer': sgd.state_dict(),
        },
        'MAE, DINO': {
            'model': state_dict,
            'optimizer': adam.state_dict(),
            'scaler': {'scale': 65536.0, '_growth_tracker': 3},
            'args': argparse.Namespace(lr=1e-3, mean=(0.5,), out=None),
        },
        'mmselfsup': {
            'meta': {
                'epoch': 3,
                'iter': 9,
                'cfg': 'a = 1',
                'seed': 2**31,
                'dataset_meta': {
                    'classes': ('a', 'b'),
                    'palette': np.zeros((2, 3), np.uint8),
                },
            },
            'state_dict': state_dict,
            'message_hub': {
                'log_scalars': {'train/loss': HistoryBuffer([1.5, 2], [1, 2])},
                'runtime_info': {'iter': np.int64(3), 'lr': np.float32(0.1)},
                'resumed_keys': {'train/loss': True},
            },
            'param_schedulers': [{'milestones': collections.Counter([3, 5])}],
        },
        'sets': {'a': {1, 'b', (2, 3)}, 'b': frozenset([b'c'])},
        'numbers': [2**100, -1, 1.5, 1j, True, None, b'', b'\xff', 'ä\n'],
    }
    for title, content in files.items():
        raw = as_written(content, old, protocol)
        expected = torch.load(io.BytesIO(raw), weights_only=False)
        found = read_bytes(raw)
        require_same(found, expected)
        crafted.require_plain(found), title


def test_plain_pickles_as_detectron2_writes_them(tmp_path):
    content = {
        'model': {'stem.conv1.weight': np.ones((2, 3), np.float32)},
        '__author__': 'someone',
        'matching_heuristics': True,
    }
    for protocol in (2, 3, 4):
        (tmp_path / 'a.pkl').write_bytes(pickle.dumps(content, protocol))
        require_same(read(tmp_path / 'a.pkl'), content)
    # Python 2 wrote bytes and text alike; MSRA's ResNets are such files.
    data = np.array([1.5, -3.0, 1e300])
    body = array('f8', [3], b'').replace(
        raw_bytes(b''), b'T' + struct.pack('<I', 24) + data.tobytes()
    )
    (tmp_path / 'a.pkl').write_bytes(
        pickled(dict_of(b'U\x05conv1', body, b'U\x02\xc3\xa4', b'N'))
    )
    require_same(read(tmp_path / 'a.pkl'), {'conv1': data, 'ä': None})


plain_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(),
        st.text(max_size=5),
        st.binary(max_size=5),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.text(max_size=3), inner, max_size=4),
        st.dictionaries(st.integers(-9, 9), inner, max_size=4).map(
            collections.OrderedDict
        ),
    ),
    max_leaves=12,
)


@repeatable(150)
@given(value=plain_values, layout=st.sampled_from(LAYOUTS))
def test_plain_data_come_back(value, layout):
    require_same(read_bytes(as_written(value, *layout)), value)


def test_tensors_go_where_they_are_wanted():
    content = {'a': torch.arange(4.0), 'b': torch.ones(2)}
    raw = as_written(content, False, 2)
    for where in ('meta', torch.device('meta'), {'cpu': 'meta'}):
        found = read_any(io.BytesIO(raw), where)
        assert found['a'].device.type == 'meta'
        assert found['a'].shape == (4,)
    asked = []

    def leave(storage, location):
        asked.append(location)
        return storage if len(asked) == 1 else None

    require_same(read_any(io.BytesIO(raw), leave), content)
    assert asked == ['cpu', 'cpu']
