"""A pre-training checkpoint, loaded as the README says."""

import numpy as np
import pytest
import torch
from PIL import Image

from mmmoco.apis import cli
from mmmoco.apis.training.jobs import train
from mmmoco.engine import checkpoint_io

pytestmark = [pytest.mark.downstream, pytest.mark.slow]


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """Two iterations of MoCo v2 on ResNet-50, on a flat folder."""
    folder = tmp_path_factory.mktemp('pretrain')
    draws = np.random.default_rng(0)
    for i in range(4):
        pixels = draws.integers(0, 255, (64, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f'{i}.jpg')
    cli.main(
        train,
        [
            'mocov2_r50_8xb32',
            '--work-dir',
            str(folder / 'run'),
            '--max-iters',
            '2',
            '--cfg-options',
            f'train_dataloader.dataset.data_root={folder}',
            'train_dataloader.batch_size=2',
            'train_dataloader.num_workers=0',
        ],
    )
    return str(folder / 'run' / 'iter_2.pth')


def pretrained(checkpoint):
    return dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone.')


def backbone_of(checkpoint):
    state = checkpoint_io.read(checkpoint)['state_dict']
    prefix = 'backbone.'
    return {
        name.removeprefix(prefix): value
        for name, value in state.items()
        if name.startswith(prefix)
    }


@pytest.mark.parametrize('library', ['mmdet', 'mmseg', 'mmpretrain'])
def test_all_318_entries_of_resnet50_equal_the_files(checkpoint, library):
    from mmengine.registry import MODELS

    backbone = MODELS.build(
        dict(
            type=f'{library}.ResNet',
            depth=50,
            init_cfg=pretrained(checkpoint),
        )
    )
    backbone.init_weights()
    expected, loaded = backbone_of(checkpoint), backbone.state_dict()
    assert len(expected) == len(loaded) == 318
    for name, value in expected.items():
        assert torch.equal(loaded[name], value), name


def test_a_detector_takes_the_backbone(checkpoint):
    """Mask R-CNN of mmdet, from its own config, as the README shows."""
    from mmengine.registry import MODELS, init_default_scope

    from mmmoco.apis import load_config

    cfg = load_config('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py')
    cfg.model.backbone.init_cfg = pretrained(checkpoint)
    init_default_scope('mmdet')
    detector = MODELS.build(cfg.model)
    detector.init_weights()
    loaded = detector.backbone.state_dict()
    for name, value in backbone_of(checkpoint).items():
        assert torch.equal(loaded[name], value), name
