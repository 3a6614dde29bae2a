"""State dicts, what does not fit, and what a file tells of itself."""

import pytest
import torch
from torch import nn

from mmmoco.apis.exchange.weight_files import encode
from mmmoco.engine import checkpoint_io
from mmmoco.engine.checkpoint_io import (
    CheckpointError,
    load_into,
    read,
    state_dict_of,
)

from ...conftest import optional
from .tiny_runs import assert_same


def test_state_dict_of():
    weights = {'module.layer.weight': torch.ones(2), 'b': torch.ones(1)}
    for checkpoint in ({'state_dict': weights}, {'model': weights}, weights):
        assert list(state_dict_of(checkpoint)) == ['layer.weight', 'b']
    for checkpoint in ({}, {'epoch': 1, 'model_ema': weights}):
        with pytest.raises(CheckpointError, match='No weights found'):
            state_dict_of(checkpoint)


def test_state_dict_of_keeps_versions(tmp_path):
    torch.save(nn.BatchNorm1d(2).state_dict(), tmp_path / 'a.pth')
    state = state_dict_of(read(tmp_path / 'a.pth'))
    assert state._metadata['']['version'] == 2


def test_load_into_says_all_in_one_line():
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    state = dict(module.state_dict())
    filled = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    load_into(filled, state)
    assert_same(dict(filled.state_dict()), state)

    state['0.weight'] = torch.ones(5, 2)
    state['head.weight'] = state['head.bias'] = torch.ones(1)
    del state['1.running_mean'], state['1.running_var']
    with pytest.raises(CheckpointError) as error:
        load_into(filled, state, 'a.pth')
    assert str(error.value) == (
        'a.pth does not fit Sequential: 3 of 6 tensors fit; 2 missing in the '
        'file: 1.running_mean, 1.running_var; 1 of another shape: 0.weight '
        '(5, 2) for (3, 2); 2 unknown to the model: head.weight, head.bias.'
    )


def test_load_into_allows_only_what_is_named():
    module = nn.ModuleDict(
        {'backbone': nn.Linear(1, 1), 'fc': nn.Linear(1, 1)}
    )
    state = {'backbone.weight': torch.ones(1, 1), 'head.bias': torch.ones(1)}
    allow = dict(allow_missing=['fc.*'], allow_extra=['head.*'])
    with pytest.raises(CheckpointError, match=r'backbone\.bias') as error:
        load_into(module, state, **allow)
    assert 'fc.weight' not in str(error.value)
    assert 'head' not in str(error.value)
    state['backbone.bias'] = torch.ones(1)
    load_into(module, state, **allow)
    assert module['backbone'].weight.item() == 1


@pytest.mark.parametrize('layout', ['archive', 'before 1.6', 'safetensors'])
def test_meta_is_read_without_the_tensors(tmp_path, layout):
    """A large file tells how it was trained at once."""
    if layout == 'safetensors':
        optional('safetensors')
    text = 'model = dict(m=0.99)'
    content = {
        'state_dict': {'w': torch.randn(1000)},
        'meta': {'cfg': text},
    }
    path = tmp_path / 'a.pth'
    if layout == 'safetensors':
        path = path.with_suffix('.safetensors')
        path.write_bytes(
            encode(content['state_dict'], content['meta'], '.safetensors')
        )
    else:
        torch.save(
            content,
            path,
            _use_new_zipfile_serialization=layout == 'archive',
        )
    noise = content['state_dict']['w'].numpy().tobytes()
    damaged = path.read_bytes().replace(noise, b'x' * len(noise))
    assert noise not in damaged
    path.write_bytes(damaged)
    meta = checkpoint_io.read_meta(path)
    assert meta['cfg'] == text
    assert checkpoint_io.config_in(meta) == {'model': {'m': 0.99}}
    if layout == 'archive':
        with pytest.raises(CheckpointError, match='checksum'):
            read(path)


@pytest.mark.parametrize('content', [[1], {'meta': [1]}, {'w': 1}])
def test_a_file_without_meta_tells_nothing(tmp_path, content):
    torch.save(content, tmp_path / 'a.pth')
    meta = checkpoint_io.read_meta(tmp_path / 'a.pth')
    assert meta == {} and checkpoint_io.config_in(meta) is None
    assert checkpoint_io.config_in({'cfg': 'a = open("x")'}) is None
