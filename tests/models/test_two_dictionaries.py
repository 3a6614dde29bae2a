"""A method with two dictionaries; one with none is ``projects/byol``."""

import copy
from pathlib import Path

import pytest
import torch

from mmmoco.apis.exchange.export_backbone import read_source
from mmmoco.apis.exchange.jobs import export_backbone, import_checkpoint
from mmmoco.apis.preflight.jobs import verify_config
from mmmoco.engine import checkpoint_io
from mmmoco.engine.bare_model import bare_model

#: Of a kind that its tensors tell.
BACKBONE = dict(
    type='mmpretrain.ResNet_CIFAR',
    depth=18,
    in_channels=1,
    stem_channels=4,
    base_channels=4,
    norm_cfg=dict(type='mmmoco.SplitBN', num_splits=2),
)


@pytest.fixture
def config(small_config):
    """Return a function that makes its config."""

    def make(**options):
        cfg = small_config(**options)
        monitor = next(h for h in cfg.custom_hooks if 'Monitor' in h.type)
        monitor.interval = 2
        model = cfg.model
        model.type, model.backbone = 'DenseCL', dict(BACKBONE)
        model.neck.update(type='mmpretrain.DenseCLNeck', in_channels=32)
        width = model.neck.out_channels
        model.dense_dictionary = dict(type='Queue', size=48, feat_dim=width)
        return cfg

    return make


def test_runs_and_resumes_bit_equal(config, runner_of):
    whole = runner_of(config(**{'train_cfg.max_epochs': 2}))
    whole.train()
    expected = bare_model(whole).state_dict()
    assert 'train/feature_std' in whole.message_hub.log_scalars

    cfg = config(**{'train_cfg.max_epochs': 2})
    cfg.load_from = str(Path(cfg.work_dir) / 'epoch_1.pth')
    cfg.resume = True
    resumed = runner_of(cfg)
    resumed.train()
    start = checkpoint_io.read(cfg.load_from)
    for name, value in bare_model(resumed).state_dict().items():
        assert torch.equal(value, expected[name]), name
    state = start['state_dict']
    key = next(n for n in state if n.startswith('key_encoder.'))
    assert not torch.equal(state[key], expected[key])
    assert start['meta']['method'] == cfg.model.type
    for name in ('dictionary', 'dense_dictionary'):
        size = state[f'{name}.keys'].shape[1]
        assert state[f'{name}.ptr'] == 4 * 16 % size
        assert not state[f'{name}.keys'].equal(expected[f'{name}.keys'])


def test_exports_and_is_taken_for_nothing_else(config, runner_of, tmp_path):
    cfg = config()
    runner_of(cfg).train()
    path = str(Path(cfg.work_dir) / 'epoch_1.pth')
    weights = checkpoint_io.read_weights(path)
    for encoder, prefix in (('query', ''), ('key', 'key_encoder.')):
        source = read_source(path, encoder)
        assert source.meta['method'] == cfg.model.type
        for name, value in source.backbone.items():
            assert torch.equal(value, weights[f'{prefix}backbone.{name}'])
    (tmp_path / 'cfg.py').write_text(cfg.pretty_text)
    config_file = str(tmp_path / 'cfg.py')
    out = export_backbone(
        path, str(tmp_path / 'out'), to='mmpretrain', config=config_file
    )
    assert out.tensors == len(source.backbone)
    # Its config cannot be read; its tensors tell.
    content = checkpoint_io.read(path)
    content['meta']['cfg'] = 'torch.load'
    torch.save(content, path)
    assert read_source(path).meta['method'] == cfg.model.type
    report = import_checkpoint(path, str(tmp_path / 'in.pth'))
    assert report.model['type'] == 'DenseCL' and not report.absent
    report = import_checkpoint(
        path, str(tmp_path / 'in.pth'), config=config_file
    )
    assert report.model['type'] == cfg.model.type


def test_passes_the_pre_flight(config):
    cfg = config()
    cfg.auto_scale_lr.base_batch_size = 16
    checks = verify_config(cfg).checks
    wrong = [check for check in checks if check.verdict != 'ok']
    assert not wrong
    rows = [check.name for check in checks]
    assert 'key encoder' in rows
    assert rows.count('dictionary') == 2


def test_each_dictionary_is_held_against_the_run(config, runner_of):
    cfg = config()
    cfg.model.dense_dictionary.size = 8
    with pytest.raises(ValueError, match='holds only 8'):
        runner_of(copy.deepcopy(cfg)).train()
