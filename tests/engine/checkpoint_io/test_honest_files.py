"""Honest files arrive whole, whoever wrote them."""

import argparse

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from torch import nn

from mmmoco.engine.checkpoint_io import (
    CheckpointError,
    load_into,
    read,
    state_dict_of,
)

from ...conftest import optional
from .tiny_runs import assert_same, make_runner


def test_full_runner_checkpoint_reads_as_without_restriction(finished):
    path = finished / 'iter_2.pth'
    everything = torch.load(path, weights_only=False)
    checkpoint = read(path)
    assert {'optimizer', 'param_schedulers', 'message_hub'} <= set(checkpoint)
    assert_same(checkpoint, everything)
    losses = checkpoint['message_hub']['log_scalars']['train/loss']
    assert losses.mean() == everything['message_hub']['log_scalars'][
        'train/loss'
    ].statistics('mean')


def test_numpy_in_all_layouts(tmp_path):
    checkpoint = {
        'empty': np.zeros((0, 3)),
        'fortran': np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        'big_endian': np.arange(4, dtype='>i2'),
        'text': np.array(['ab', 'ç']),
        'bool': np.array([True, False]),
        'scalars': [np.float32(1.5), np.int64(-3), np.bool_(True)],
        'dtype': np.dtype('float16'),
        'rng': np.random.RandomState(0).get_state(),
        'shared': [HistoryBuffer([1.0], [1])] * 2,
    }
    torch.save(checkpoint, tmp_path / 'a.pth')
    loaded = read(tmp_path / 'a.pth')
    assert_same(loaded, checkpoint)
    assert loaded['shared'][0] is loaded['shared'][1]
    loaded['empty'].resize(1)  # owns its memory


@pytest.mark.parametrize('zipped', [True, False])
def test_checkpoints_of_reference_implementations(tmp_path, zipped):
    layer = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(layer.parameters(), 0.1, momentum=0.9)
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    path = tmp_path / 'checkpoint_0199.pth.tar'
    torch.save(
        {
            'epoch': 200,
            'arch': 'resnet50',
            'state_dict': nn.DataParallel(layer).state_dict(),
            'optimizer': optimizer.state_dict(),
            'args': argparse.Namespace(lr=np.float64(1), mean=np.ones(3)),
        },
        path,
        _use_new_zipfile_serialization=zipped,
    )
    checkpoint = read(path)
    # Its content only: nothing of the file becomes an attribute.
    assert_same(checkpoint['args'], {'lr': np.float64(1), 'mean': np.ones(3)})
    assert_same(checkpoint['optimizer'], optimizer.state_dict())
    load_into(nn.Linear(2, 2), state_dict_of(checkpoint))


def test_resume_continues_the_run(work_dir, tmp_path):
    make_runner(tmp_path / 'whole', max_iters=4).train()
    resumed = make_runner(work_dir, max_iters=4, resume=True)
    resumed.train()
    assert resumed.iter == 4
    whole = read(tmp_path / 'whole/iter_4.pth')
    again = read(work_dir / 'iter_4.pth')
    for name in ('optimizer', 'param_schedulers'):
        assert_same(again[name], whole[name])
    losses = again['message_hub']['log_scalars']['train/loss']
    assert len(losses.data[0]) == 4


def test_safetensors(tmp_path):
    torch_part = optional('safetensors.torch')
    weights = {'a': torch.arange(3.0)}
    path = tmp_path / 'a.safetensors'
    torch_part.save_file(weights, path, metadata={'config': 'import os'})
    assert_same(
        read(path),
        {'state_dict': weights, 'meta': {'config_text': 'import os'}},
    )
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match='a.safetensors'):
        read(path)


def test_safetensors_library_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'safetensors', None)
    (tmp_path / 'a.safetensors').write_bytes(b'x')
    with pytest.raises(ImportError, match=r'pip install safetensors'):
        read(tmp_path / 'a.safetensors')
