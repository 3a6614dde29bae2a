"""A resume says what is not as it was, and which value counts."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mmmoco.engine import checkpoint_io
from mmmoco.engine.bare_model import bare_model
from mmmoco.engine.changes import (
    changes,
    describe_data,
    describe_run,
    hash_of_names,
)


def log_of(runner):
    text = Path(runner.log_dir, f'{runner.timestamp}.log').read_text()
    return text[text.find('Not as when') :] if 'Not as when' in text else ''


def resumed(small_config, runner_of, **options):
    cfg = small_config(**{'train_cfg.max_epochs': 2, **options})
    cfg.load_from, cfg.resume = f'{cfg.work_dir}/epoch_1.pth', True
    runner = runner_of(cfg)
    runner.train()
    return runner


@pytest.mark.parametrize('before', ['128', None])
def test_widths_that_follow_from_the_backbone(before):
    """Written out, as older configs have them, or derived: they are equal."""
    cfg = Config(
        dict(
            model=dict(
                backbone=dict(in_channels=3),
                neck=dict(in_channels=None),
                heads=dict(rec=dict(in_channels=64)),
            )
        )
    )
    runner = SimpleNamespace(
        cfg=cfg,
        train_dataloader=SimpleNamespace(dataset=[]),
        optim_wrapper=SimpleNamespace(param_groups=[]),
    )
    now = describe_run(runner)
    assert now['options'] == {'model.backbone.in_channels': '3'}
    options = {'model.backbone.in_channels': '3'}
    if before is not None:
        options['model.neck.in_channels'] = before
        options['model.heads.cls.projector.in_channels'] = before
    stored = {**now, 'options': options}
    assert changes(runner, {'run': stored}, {}, now) == []
    options['model.backbone.in_channels'] = '1'
    (said,) = changes(runner, {'run': stored}, {}, now)
    assert 'model.backbone.in_channels 1 before, 3 now' in said


@pytest.mark.slow
def test_settings_of_the_config(small_config, runner_of):
    first = runner_of(small_config(**{'train_cfg.max_epochs': 2}))
    first.train()
    assert log_of(resumed(small_config, runner_of)) == ''
    runner = resumed(
        small_config,
        runner_of,
        **{
            'optim_wrapper.optimizer.lr': 0.5,
            'optim_wrapper.optimizer.weight_decay': 0.1,
            'optim_wrapper.optimizer.momentum': 0.5,
            'model.m': 0.95,
            'randomness.seed': 7,
            'default_hooks.logger.interval': 2,  # not worth a word
        },
    )
    said = log_of(runner)
    for words in (
        'lr 0.5 in the config, 0.03 in the checkpoint',
        'momentum 0.5 in the config, 0.9 in the checkpoint',
        'weight_decay 0.1 in the config, 0.0005 in the checkpoint',
        'seed 7 in the config, 0 in the checkpoint',
        'those of the checkpoint count',
        'model.m 0.99 before, 0.95 now',
        'what it has now counts',
    ):
        assert words in said, said
    assert 'logger' not in said and 'others' not in said
    # What it says is what is so.
    (group,) = runner.optim_wrapper.param_groups
    assert group['momentum'] == 0.9 and group['weight_decay'] == 5e-4
    assert runner.seed == 0 and bare_model(runner).m == 0.95


@pytest.mark.slow
def test_a_file_that_says_nothing_of_it(small_config, runner_of):
    first = runner_of(small_config(**{'train_cfg.max_epochs': 2}))
    first.train()
    path = Path(first.work_dir, 'epoch_1.pth')
    checkpoint = torch.load(path, weights_only=False)
    checkpoint['meta']['run'] = {'options': 3}
    checkpoint_io.write(checkpoint, path)
    runner = resumed(small_config, runner_of)
    assert log_of(runner) == ''
    now = describe_run(runner)
    for stored in (None, 'x', 7, {}, {'data': [1]}, {'config': None}):
        assert changes(runner, {'run': stored}, {}, now) == []
    assert changes(runner, {}, {}, now) == []


def test_names_that_a_config_has_for_itself(small_config, runner_of):
    """What they are for is compared where it is used."""
    cfg = small_config(**{'crop.size': 224, 'model.m': 0.95})
    runner = runner_of(cfg)
    runner.train()
    now = describe_run(runner)
    assert 'model.m' in now['options']
    assert not {'crop.size', 'scenes.channels'} & now['options'].keys()
    older = {**now, 'options': {**now['options'], 'crop.size': '96'}}
    assert changes(runner, {'run': older}, {}, now) == []


def images(folder, numbers):
    folder.mkdir(parents=True, exist_ok=True)
    for i in numbers:
        Image.new('RGB', (8, 8), (i, i, i)).save(folder / f'{i:03}.png')
    return folder


def test_names_of_the_data(tmp_path):
    """Removed, added and renamed files are told; a moved folder is none."""
    from mmmoco.datasets import ImageFolderDataset

    def facts(folder):
        return describe_data(ImageFolderDataset(str(folder)))

    folder = images(tmp_path / 'a' / 'x', range(9))
    images(tmp_path / 'a' / 'y', range(9))
    root = tmp_path / 'a'
    before = facts(root)
    assert before['samples'] == 18 and before['shards'] is None
    shutil.copytree(root, tmp_path / 'moved')
    assert facts(tmp_path / 'moved') == before
    (folder / '003.png').rename(folder / '003a.png')
    assert facts(root)['names'] != before['names']
    (folder / '003a.png').rename(folder / '003.png')
    assert facts(root) == before
    (folder / '003.png').unlink()
    assert facts(root)['samples'] == 17


def test_hash_of_names():
    assert hash_of_names(['/a']) == hash_of_names(['/b/a'])
    assert hash_of_names(['/r/a', '/r/b']) != hash_of_names(['/r/b', '/r/a'])
    assert hash_of_names(['a', '/b']) != hash_of_names(['a', '/c'])
    assert hash_of_names(['/r/\udce9.png'])
    many = [f'/r/{i:07}' for i in range(20_000)]
    for i in (0, 4095, 4096, 19_999):
        other = [*many]
        other[i] += 'x'
        assert hash_of_names(other) != hash_of_names(many)
