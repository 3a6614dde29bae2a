"""One step of every config, cut down."""

import numpy as np
import pytest
import torch
from PIL import Image

from mmmoco import TrainStep
from mmmoco.apis import load_config

from .names import OWN

#: How each architecture is cut down: fewer blocks, an eighth of the width.
TINY_VIT = dict(
    embed_dims=48, num_layers=2, num_heads=12, feedforward_channels=96
)
CUTS = {
    'ResNet': dict(depth=18, stem_channels=8, base_channels=8),
    'MoCoV3ResNet': dict(depth=18, stem_channels=8, base_channels=8),
    'ResNet_CIFAR': dict(stem_channels=8, base_channels=8),
    'ResNeXt': dict(
        stem_channels=8, base_channels=8, groups=4, width_per_group=2
    ),
    'PlainConvNet': {},
    'MoCoV3ViT': dict(arch=TINY_VIT),
    'VisionTransformer': dict(arch=TINY_VIT),
    'ConvNeXt': dict(arch=dict(depths=[1, 1, 1, 1], channels=[8, 16, 24, 48])),
    'TimmBackbone': dict(embed_dim=48, depth=2, num_heads=4),
}
WIDTHS = {
    'ResNeXt': 256,
    'PlainConvNet': 128,
    'MoCoV3ViT': 48,
    'VisionTransformer': 48,
}
DICTIONARIES = {
    'Queue': dict(size=64, feat_dim=16),
    'MemoryBank': dict(size=16, feat_dim=16, num_negatives=8),
    'InBatch': {},
}
SMALL_BATCH = 16
SENTINEL_2 = [f'B{i}' for i in range(1, 13)] + ['B8A']


def cut(cfg, folder):
    """Apply the table above, images of a folder, 16 a batch."""
    model = cfg.model
    for part in ('backbone', 'teacher'):
        if part not in model:
            continue
        net = model[part]
        if net.type == 'Teacher':
            net.random, net = True, net.backbone
        kind = net.type.split('.')[-1]
        was = net.get('arch', '')
        net.update(CUTS[kind])
        net.pop('init_cfg', None)
        if part == 'teacher':  # Of weights for 518 pixels.
            net.img_size = 28 if 'patch_size' in net else 32
        if 'conv' in str(was):
            net.arch = {**TINY_VIT, 'conv_stem': True}
    for name, head in model.get('heads', {}).items():
        width = TINY_VIT['embed_dims']
        if name == 'rec':
            head.in_channels = width
        else:
            head.projector.update(
                in_channels=width, hid_channels=16, out_channels=16
            )
        if '_4xb' in cfg.filename:
            model.backbone.drop_path_rate = 0.0  # every block moves
    if 'neck' in model:
        kind = model.backbone.type.split('.')[-1]
        model.neck.in_channels = WIDTHS.get(kind, 64)
        for head in filter(None, (model.neck, model.get('predictor'))):
            head.out_channels = 16
            if 'hid_channels' in head:
                head.hid_channels = 16
        if 'predictor' in model:
            model.predictor.in_channels = 16
        model.dictionary.update(DICTIONARIES[model.dictionary.type])
    dataset = cfg.train_dataloader.dataset
    if 'multiband' in cfg:
        dataset.data_root = str(folder / 'bands')
    elif dataset.type == 'ImageFolderDataset':
        dataset.data_root = str(folder)
        dataset.data_prefix = ''
    elif dataset.type == 'SeasonalPlaces':
        dataset.data_root, dataset.data_prefix = str(folder / 'places'), ''
    else:
        dataset.num_scenes = SMALL_BATCH


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    draws = np.random.default_rng(0)
    for i in range(SMALL_BATCH):
        pixels = draws.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f'{i:02}.png')
        raw = draws.integers(0, 4000, (40, 40, 13), dtype=np.uint16)
        (folder / 'bands').mkdir(exist_ok=True)
        np.save(folder / f'bands/{i:02}.npy', raw)
        # Sentinel-2: a folder for each date, a file for each band.
        for date in ('spring', 'autumn'):
            place = folder / f'places/{i:02}/{date}'
            place.mkdir(parents=True)
            for band in SENTINEL_2:
                side = 40 if band in ('B2', 'B3', 'B4', 'B8') else 20
                raw = draws.integers(0, 4000, (side, side), dtype=np.uint16)
                np.save(place / f'{band}.npy', raw)
    return folder


@pytest.mark.parametrize('name', OWN)
def test_config_trains_cut_down(name, images):
    """Data, views, forward, backward and step, all as configured."""
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import init_default_scope
    from torch.utils.data import default_collate

    import mmmoco.engine  # noqa: F401
    from mmmoco.apis.config.adapt import use_precision
    from mmmoco.registry import DATASETS, MODELS

    cfg = load_config(name, {'view_size': 32})
    cut(cfg, images)
    use_precision(cfg, amp=False, fast=False)  # float16 only on a GPU
    init_default_scope('mmmoco')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    model.train()
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    batch = default_collate([dataset[i] for i in range(SMALL_BATCH)])
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    counts = cfg.optim_wrapper.get('accumulative_counts', 1)
    train_step = TrainStep(model, wrapper, total=2 * counts)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for _ in range(counts):
        assert not wrapper.stepped
        log = train_step(batch)
        assert torch.isfinite(log['loss'])
    assert wrapper.stepped
    moved = {
        n for n, p in model.named_parameters() if not torch.equal(p, before[n])
    }
    key_encoder = model.key_encoder_name
    if model.key_encoder is not None:
        assert any(n.startswith(f'{key_encoder}.') for n in moved)
    moved = {n for n in moved if not n.startswith(f'{key_encoder}.')}
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    assert moved <= trainable
    # Where BatchNorm starts a block at zero, what it scales waits a step.
    assert len(moved) > 0.6 * len(trainable)


@pytest.mark.parametrize('name', [n for n in OWN if 'mocov3' in n])
def test_sync_bn_turns_into_layers_that_take_what_they_get(name, images):
    """Under gloo; BN takes only maps, BN1d only vectors."""
    from mmengine.registry import init_default_scope

    from mmmoco.apis.config.adapt import replace_sync_bn
    from mmmoco.registry import MODELS

    cfg = load_config(name, {'view_size': 32})
    cut(cfg, images)
    assert replace_sync_bn(cfg._cfg_dict) == ('_1xb' not in name)
    init_default_scope('mmmoco')
    model = MODELS.build(cfg.model)
    kinds = {type(m).__name__ for m in model.modules()}
    assert 'SyncBatchNorm' not in kinds
    channels = len(cfg.model.data_preprocessor.mean)
    model.encode_query(torch.randn(4, channels, 32, 32))


def test_weight_decay_covers_every_trainable_parameter(small_config):
    """As published: BatchNorm and biases too."""
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import init_default_scope

    from mmmoco.apis import get_model

    cfg = small_config()
    init_default_scope('mmmoco')
    model = get_model(cfg)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    groups = wrapper.optimizer.param_groups
    trainable = [p for p in model.parameters() if p.requires_grad]
    decayed = {id(p) for g in groups for p in g['params']}
    assert {id(p) for p in trainable} <= decayed
    assert {g['weight_decay'] for g in groups} == {5e-4}
