"""Another backbone by options alone: it is built, and takes a step."""

import numpy as np
import pytest
import torch
from PIL import Image

import mmmoco
from tests.conftest import optional

pytestmark = pytest.mark.slow

VIT = dict(embed_dims=48, num_layers=1, num_heads=4, feedforward_channels=48)
#: Type → what else an option says of it.
BACKBONES = {
    'mmpretrain.ResNet': dict(depth=18),
    'mmpretrain.ConvNeXt': dict(arch='atto'),
    'mmpretrain.VisionTransformer': dict(arch=VIT, img_size=32, patch_size=8),
    'mmpretrain.SwinTransformer': dict(
        arch=dict(embed_dims=8, depths=[1] * 4, num_heads=[1] * 4),
        img_size=32,
        pad_small_map=True,
    ),
    'mmpretrain.MobileNetV2': dict(widen_factor=0.25),
    'mmpretrain.MobileNetV3': dict(arch='small'),
    'mmpretrain.EfficientNet': dict(arch='b0'),
    'mmpretrain.HRNet': dict(arch='w18'),
    'mmmoco.TimmBackbone': dict(model_name='resnet10t'),
}


@pytest.mark.parametrize('kind', BACKBONES)
def test_one_iteration(kind, tmp_path):
    if kind == 'mmmoco.TimmBackbone':
        optional('timm')
    draws = np.random.default_rng(0)
    for number in range(8):
        pixels = draws.integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f'{number}.png')
    work_dir = tmp_path / 'run'
    changes = {f'model.backbone.{k}': v for k, v in BACKBONES[kind].items()}
    mmmoco.train(
        'mocov2_r50_8xb32',
        work_dir=str(work_dir),
        max_iters=1,
        cfg_options={
            'view_size': 32,
            'model.backbone.type': kind,
            **changes,
            'model.dictionary.size': 16,
            'train_dataloader.batch_size': 4,
            'train_dataloader.num_workers': 0,
            'train_dataloader.persistent_workers': False,
            'train_dataloader.dataset.data_root': str(tmp_path),
        },
    )
    path = str(work_dir / 'iter_1.pth')
    weights = torch.load(path, weights_only=False)['state_dict']
    assert all(torch.isfinite(x).all() for x in weights.values())
    found = mmmoco.get_model(
        str(next(work_dir.glob('*.py'))), path
    ).extract_feat(torch.rand(2, 3, 32, 32))
    assert found.dim() == 2 and torch.isfinite(found).all()
