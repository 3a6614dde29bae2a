"""A run that stopped within an epoch goes on with its next batch."""

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from PIL import Image

from mmmoco.apis.data.shard_writer import write_shards
from mmmoco.datasets import ImageFolderDataset
from mmmoco.engine.bare_model import bare_model

CROP = dict(type='FastRandomResizedCrop', size=16)


class Numbers(Hook):
    """Notes epoch and number of every batch."""

    seen = None

    def before_train(self, runner):
        Numbers.seen = []

    def after_train_iter(self, runner, batch_idx, **_):
        self.seen.append((runner.epoch, batch_idx))


@pytest.fixture
def sources(tmp_path):
    """The same images as files and as shards."""
    folder, shards = tmp_path / 'images', tmp_path / 'shards'
    folder.mkdir()
    draws = np.random.default_rng(0)
    for i in range(64):
        pixels = draws.integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f'{i:02}.png')
    write_shards(ImageFolderDataset(str(folder)), shards, 8)
    return {
        'ImageFolderDataset': dict(data_root=str(folder)),
        'TarShards': dict(data_root=str(shards), lanes=2, buffer_size=5),
    }


@pytest.mark.parametrize(
    ('kind', 'loop'),
    [
        ('ImageFolderDataset', 'epochs'),
        ('TarShards', 'epochs'),
        pytest.param('TarShards', 'iterations', marks=pytest.mark.slow),
        pytest.param(
            'ImageFolderDataset', 'iterations', marks=pytest.mark.slow
        ),
    ],
)
def test_resuming_equals_not_having_stopped(
    small_config, runner_of, sources, kind, loop
):
    def config():
        cfg = small_config(**{'train_cfg.max_epochs': 2})
        cfg.train_dataloader.dataset = dict(
            type=kind,
            pipeline=[
                dict(type='LoadRGB'),
                dict(type='Views', views=dict(view_q=[CROP], view_k=[CROP])),
            ],
            **sources[kind],
        )
        cfg.model.data_preprocessor = dict(
            type='ViewAugmentor', mean=(127.0,) * 3, std=(64.0,) * 3
        )
        cfg.model.backbone.in_channels = 3
        cfg.default_hooks.checkpoint.update(by_epoch=False, interval=3)
        if loop == 'iterations':
            cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=8)
            cfg.train_dataloader.sampler.infinite = True
            cfg.log_processor.by_epoch = False
            cfg.param_scheduler = []
        return cfg

    whole = runner_of(config())
    whole.train()
    expected = bare_model(whole).state_dict()
    cfg = config()  # In the middle of the second epoch:
    cfg.load_from = f'{cfg.work_dir}/iter_6.pth'
    cfg.resume = True
    runner = runner_of(cfg)
    runner.register_hook(Numbers(), 'VERY_LOW')
    runner.train()
    assert runner.iter == 8
    if loop == 'epochs':
        assert Numbers.seen == [(1, 2), (1, 3)]
    for name, value in bare_model(runner).state_dict().items():
        assert torch.equal(value, expected[name]), name
