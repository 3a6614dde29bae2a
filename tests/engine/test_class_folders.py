"""mmpretrain's class folders: hidden ones, and those of another split."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from mmmoco.apis import load_config
from mmmoco.apis.probing.jobs import test as run_test
from mmmoco.engine.class_folders import hidden_skipped

PIPELINE = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
COLOURS = {'ant': 30, 'bee': 130, 'cat': 230}


@pytest.fixture
def folder(tmp_path):
    draws = np.random.default_rng(0)
    for split, names in (('train', COLOURS), ('val', ('bee', 'cat'))):
        for name in names:
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(8):
                pixels = COLOURS[name] + draws.integers(-5, 6, (12, 12, 3))
                image = Image.fromarray(pixels.astype(np.uint8))
                image.save(tmp_path / split / name / f'{i}.png')
    return tmp_path


@hidden_skipped
def test_hidden_folders_and_files_are_no_classes(folder, capsys):
    from mmpretrain.datasets import CustomDataset, ImageNet

    train = folder / 'train'
    shutil.copytree(train / 'bee', train / '.ipynb_checkpoints')
    shutil.copytree(train / 'bee', train / 'cat/.ipynb_checkpoints')
    shutil.copy(train / 'bee/0.png', train / 'ant/._0.png')
    data = CustomDataset(data_root=str(train))
    assert data.folder_to_idx == {'ant': 0, 'bee': 1, 'cat': 2}
    assert len(data) == 24
    told = capsys.readouterr().out
    assert '1 folders of' in told and "'.ipynb_checkpoints'" in told
    assert '8 images of' in told
    assert len(CustomDataset(data_root=str(train), with_label=False)) == 24
    names = tuple(COLOURS)
    data = ImageNet(
        data_root=str(folder), split='train', metainfo={'classes': names}
    )
    assert len(data) == 24


def small(folder, tmp_path):
    cfg = load_config(
        'benchmarks/classification/fine_tune/mocov2_r50_8xb32_30e'
    )
    for name, split in (('train', 'train'), ('val', 'val'), ('test', 'val')):
        loader = cfg[f'{name}_dataloader']
        loader.dataset = dict(
            type='CustomDataset',
            data_root=str(folder / split),
            pipeline=PIPELINE,
        )
        loader.num_workers, loader.batch_size = 0, 8
        loader.persistent_workers = False
    cfg.model.backbone = dict(
        type='mmmoco.PlainConvNet',
        channels=(4, 8),
        strides=(1, 2),
        in_channels=3,
        out_indices=(1,),
    )
    cfg.model.head.num_classes, cfg.model.head.in_channels = 3, 8
    cfg.model.head.topk = (1,)
    cfg.data_preprocessor.num_classes = 3
    cfg.val_evaluator = cfg.test_evaluator = dict(type='Accuracy', topk=(1,))
    cfg.custom_hooks = []
    cfg.train_cfg.max_epochs = cfg.train_cfg.val_interval = 20
    cfg.visualizer = dict(type='Visualizer')
    cfg.work_dir = str(tmp_path / 'run')
    return cfg


@pytest.mark.slow
def test_a_validation_split_without_the_first_class(
    folder, tmp_path, runner_of, capsys
):
    """Fine-tuned to certainty, then validated and tested by name."""
    cfg = small(folder, tmp_path)
    runner = runner_of(cfg)
    runner.train()
    best = runner.message_hub.get_scalar('val/accuracy/top1').current()
    assert best == 100.0
    assert "val_dataloader lacks 1 class: 'ant'" in capsys.readouterr().out
    path = tmp_path / 'cfg.py'
    cfg.dump(str(path))
    checkpoint = tmp_path / 'run/epoch_20.pth'
    meta = torch.load(checkpoint, weights_only=False)['meta']
    assert meta['class_folders'] == ('ant', 'bee', 'cat')
    run_test(str(checkpoint), config=str(path), work_dir=str(tmp_path / 't'))
    assert 'accuracy/top1: 100.0' in capsys.readouterr().out


@pytest.mark.slow
def test_a_class_that_was_not_trained_is_an_error(folder, tmp_path, runner_of):
    (folder / 'val/dog').mkdir()
    shutil.copy(folder / 'val/bee/0.png', folder / 'val/dog')
    with pytest.raises(ValueError, match="val_dataloader has 1 class .*'dog'"):
        runner_of(small(folder, tmp_path)).train()
