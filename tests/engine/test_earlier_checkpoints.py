"""Checkpoints of before the contract of a model still load and go on."""

from pathlib import Path

import cv2
import pytest
import torch
from packaging.version import Version

import mmmoco
from mmmoco.apis.exchange.export_backbone import read_source
from mmmoco.apis.exchange.jobs import export_backbone
from mmmoco.engine import checkpoint_io
from mmmoco.engine.bare_model import bare_model
from mmmoco.engine.checkpoint_io import CheckpointError

from .earlier.make import KINDS, config, images

FILES = Path(__file__).parent / 'earlier'
#: As float32 is summed in another order on another processor.
BOUND = dict(atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('kind', KINDS)
def test_features_are_those_of_then(kind, tmp_path):
    model = mmmoco.get_model(
        config(kind, tmp_path), str(FILES / f'{kind}_1.pth')
    )
    stages = torch.load(FILES / f'{kind}_features.pth')
    for stage, expected in stages.items():
        with torch.no_grad():
            found = model.extract_feat(images(kind), stage)
        torch.testing.assert_close(found, expected, **BOUND)


@pytest.mark.parametrize('kind', KINDS)
def test_a_run_of_then_goes_on(kind, tmp_path, runner_of):
    cfg = config(kind, tmp_path)
    # What the config of a distillation could not have.
    cfg.custom_hooks = config('moco', tmp_path).custom_hooks
    cfg.load_from, cfg.resume = str(FILES / f'{kind}_1.pth'), True
    runner = runner_of(cfg)
    runner.train()
    assert runner.iter == 4
    # OpenCV 5 rounds otherwise where it warps the digits of the scenes.
    if kind != 'moco' or Version(cv2.__version__) >= Version('5'):
        return
    then = checkpoint_io.read(FILES / 'moco_2.pth')['state_dict']
    start = checkpoint_io.read(cfg.load_from)['state_dict']
    now = bare_model(runner).state_dict()
    assert list(now) == list(then)
    for name, value in now.items():
        torch.testing.assert_close(value, then[name], **BOUND)
    assert not torch.equal(
        start['neck.mlp.0.weight'], now['neck.mlp.0.weight']
    )


@pytest.mark.parametrize('kind', KINDS)
def test_both_encoders_are_exported(kind, tmp_path):
    path = str(FILES / f'{kind}_1.pth')
    weights = checkpoint_io.read_weights(path)
    method = {'moco': 'MoCoV2', 'mocov3': 'MoCoV3', 'mmc': 'MMC'}
    key = 'teacher.' if kind == 'mmc' else 'key_encoder.'
    for encoder, prefix in (('query', ''), ('key', key)):
        if kind == 'distillation' and encoder == 'key':
            with pytest.raises(CheckpointError, match='query encoder'):
                read_source(path, encoder)
            continue
        source = read_source(path, encoder)
        assert source.meta['method'] == method.get(kind, 'Distillation')
        assert source.backbone
        for name, value in source.backbone.items():
            assert torch.equal(value, weights[f'{prefix}backbone.{name}'])
    out = export_backbone(path, str(tmp_path / 'out'), to='mmpretrain')
    assert out.tensors == len(source.backbone)
