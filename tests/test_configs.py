"""Every shipped config is read, and held against what it claims."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

import mmmoco
from mmmoco import TrainStep
from mmmoco.apis import load_config
from mmmoco.apis.config.files import config_root, resolve_config
from mmmoco.apis.model import build_without_memory
from mmmoco.two_phase import TwoPhaseModel

from .comparison import Comparison, check

NAMES = mmmoco.list_configs()
#: Those of pre-training.
OWN = [n for n in NAMES if not n.startswith('benchmarks/')]
#: Those that need neither mmdet nor mmseg; tests/downstream has the others.
CORE = [n for n in NAMES if not n.startswith('benchmarks/mm')]
RUNTIME = Config.fromfile(config_root() / '_base_' / 'default_runtime.py')
#: A config that lists its own hooks must not lose one of these.
RUNTIME_HOOKS = {hook.type for hook in RUNTIME.custom_hooks}

# ----------------------------------------------- parameters, key encoder incl.

R50, VIT_S, VIT_B, VIT_L = 23_508_032, 21_665_664, 85_798_656, 303_301_632


def conv_vit(width):
    """Eleven blocks, stem, positions, class token, final norm."""
    attention = 4 * width * width + 4 * width
    mlp = 8 * width * width + 5 * width
    block = attention + mlp + 4 * width
    sides = [3, *(width * 2**i // 8 for i in range(4))]
    convs = zip(sides, sides[1:], strict=False)
    stem = sum(9 * a * b + 2 * b for a, b in convs) + width * width + width
    return 11 * block + stem + (197 + 1 + 2) * width


def linear(width):
    """Twice the backbone with one linear layer."""
    return 2 * (width + 2048 * 128 + 128)


def v3(backbone, width, layers):
    hidden = 4096 * 4096 + 2 * 4096
    projector = width * 4096 + 2 * 4096 + 4096 * 256 + (layers - 2) * hidden
    predictor = 256 * 4096 + 2 * 4096 + 4096 * 256
    return 2 * (backbone + projector) + predictor


#: Published totals.
PARAMETERS = {
    'mocov2_r50_8xb32': 55_933_312,
    'mocov2_r50_8xb32_800e': 55_933_312,
    'mocov3_r50_16xb256_100e': 68_012_160,
    'mocov3_r50_16xb256_300e': 68_012_160,
    'mocov3_r50_16xb256_1000e': 68_012_160,
    'mocov3_r50_2xb64_accum4_low-vram': 68_012_160,
    'mocov3_vit-s_32xb128_300e': 84_266_752,
    'mocov3_vit-s_8xb128_300e': 84_266_752,
    'mocov3_vit-b_64xb64_300e': 215_678_464,
    'mocov3_vit-l_64xb64_300e': 652_781_568,
    # Counted by hand from the published shapes.
    'mocov1_r50_8xb32': linear(R50),
    'mocov1_r50_64xb16_1250k': linear(R50),
    'mocov1_r50_8xb32_memory-bank': linear(R50) // 2,
    'mocov1_r50_8xb32_end-to-end': linear(R50) // 2,
    'mocov3_vit-conv-s_32xb128_300e': v3(conv_vit(384), 384, 3),
    'mocov3_vit-conv-b_64xb64_300e': v3(conv_vit(768), 768, 3),
    # At 96 pixels there are 6×6 positions in place of 14×14.
    'mocov3_vit-s_1xb256_cifar10-96px': 84_266_752 - 2 * (196 - 36) * 384,
    # Ten more channels in a projection of 16×16 pixels, in both encoders.
    'mocov3_vit-s_4xb64_sentinel2-13band': 84_266_752 + 20 * 256 * 384,
    'mocov2_r50_8xb32_satellite': 55_933_312,
    # ResNet-18 without its last layer, 3×3 kernels in the first.
    'mocov2_r18_1xb512_cifar10': 2 * (11_168_832 + 512 * 128 + 128),
}
#: Published size of one encoder, in millions.
MILLIONS = {
    'mocov1_r50_8xb32': 24,
    'mocov1_rx50_8xb32': 46,
    'mocov1_r50w2x_8xb32': 94,
    'mocov1_r50w4x_8xb32': 375,
    'mocov2_r50_8xb32': 24,
    'mocov3_vit-s_32xb128_300e': 22,
    'mocov3_vit-b_64xb64_300e': 86,
    # 304 in the paper; 303.3 with the positions counted.
    'mocov3_vit-l_64xb64_300e': 303,
}


def test_the_hand_count_agrees_with_the_published_totals():
    assert v3(R50, 2048, 2) == 68_012_160
    assert v3(VIT_S, 384, 3) == 84_266_752
    assert v3(VIT_B, 768, 3) == 215_678_464
    assert v3(VIT_L, 1024, 3) == 652_781_568


def test_the_list_is_complete():
    assert 'mocov2_r50_8xb32' in NAMES and 'demo/mocov2_digits' in NAMES
    assert not [name for name in NAMES if '_base_' in name]
    assert mmmoco.list_configs('mocov2_digits') == ['demo/mocov2_digits']
    assert {*PARAMETERS, *MILLIONS, *RECIPES} <= set(NAMES)


@pytest.mark.parametrize('name', NAMES)
def test_config_opens_with_its_four_lines_and_is_short(name):
    lines = resolve_config(name).read_text().splitlines()
    assert all(line.startswith('# ') for line in lines[:4])
    for word, line in zip(('Hardware', 'Time', 'Metric'), lines[1:4]):
        assert line.startswith(f'# {word}: '), line
    if not name.startswith('demo/'):
        assert len(lines) < 40


@pytest.mark.parametrize('name', CORE)
def test_config_builds_on_the_meta_device(name):
    cfg = load_config(name)
    model = build_without_memory(cfg)
    total = sum(p.numel() for p in model.parameters())
    if name in PARAMETERS:
        assert total == PARAMETERS[name]
    if name in MILLIONS:
        encoder = sum(p.numel() for p in model.backbone.parameters())
        assert round(encoder / 1e6) == MILLIONS[name]
    if name in OWN:
        assert isinstance(model, TwoPhaseModel)
        hooks = {hook.type for hook in cfg.custom_hooks}
        assert model.needs <= RUNTIME_HOOKS <= hooks
        assert cfg.optim_wrapper.type == 'ContrastOptimWrapper'


# ------------------------------------------------------------------- recipes

#: lr: the actual one, at the effective batch; views: scale of the crop.
V1 = dict(
    optimizer='SGD',
    lr=0.03,
    weight_decay=1e-4,
    batch=256,
    m=0.999,
    m_schedule='constant',
    temperature=0.07,
    dictionary='Queue',
    size=65536,
    feat_dim=128,
    epochs=200,
    dtype='float32',
    scale=(0.2, 1.0),
    views='mocov1',
)
V2 = {**V1, 'temperature': 0.2, 'views': 'mocov2'}
V3_R50 = dict(
    optimizer='LARS',
    lr=9.6,
    weight_decay=1e-6,
    batch=4096,
    m=0.99,
    m_schedule='cosine',
    temperature=1.0,
    dictionary='InBatch',
    epochs=100,
    warmup=10,
    dtype='float16',
    scale=(0.2, 1.0),
    views='mocov3',
)
V3_VIT = {
    **V3_R50,
    'optimizer': 'AdamW',
    'lr': 2.4e-3,
    'weight_decay': 0.1,
    'temperature': 0.2,
    'epochs': 300,
    'warmup': 40,
    'scale': (0.08, 1.0),
}
QUEUE = dict(dictionary='Queue', size=65536)
RECIPES = {
    'mocov1_r50_8xb32': V1,
    'mocov1_rx50_8xb32': V1,
    'mocov1_r50w2x_8xb32': V1,
    'mocov1_r50w4x_8xb32': V1,
    'mocov1_r50_8xb32_memory-bank': {
        **V1,
        'dictionary': 'MemoryBank',
        'size': 1281167,
        'num_negatives': 65536,
        'momentum': 0.5,
    },
    'mocov1_r50_8xb32_end-to-end': {
        k: v for k, v in V1.items() if k not in ('size', 'feat_dim')
    }
    | {'dictionary': 'InBatch', 'key_grad': True},
    'mocov1_r50_64xb16_1250k': {
        **V1,
        'lr': 0.12,
        'batch': 1024,
        'epochs': None,
        'max_iters': 1_250_000,
    },
    'mocov2_r50_8xb32': V2,
    'mocov2_r50_8xb32_800e': {**V2, 'epochs': 800},
    'mocov2_r18_1xb512_cifar10': {
        **V2,
        'lr': 0.06,
        'weight_decay': 5e-4,
        'batch': 512,
        'm': 0.99,
        'temperature': 0.1,
        'size': 4096,
        'scale': None,
        'views': 'cifar10',
    },
    'mocov3_r50_16xb256_100e': V3_R50,
    'mocov3_r50_16xb256_300e': {**V3_R50, 'lr': 4.8, 'epochs': 300},
    'mocov3_r50_16xb256_1000e': {
        **V3_R50,
        'lr': 4.8,
        'epochs': 1000,
        'weight_decay': 1.5e-6,
        'm': 0.996,
    },
    'mocov3_vit-s_32xb128_300e': V3_VIT,
    'mocov3_vit-s_8xb128_300e': {**V3_VIT, 'lr': 6e-4, 'batch': 1024},
    'mocov3_vit-b_64xb64_300e': V3_VIT,
    'mocov3_vit-l_64xb64_300e': V3_VIT,
    'mocov3_vit-conv-s_32xb128_300e': V3_VIT,
    'mocov3_vit-conv-b_64xb64_300e': V3_VIT,
    'mocov3_r50_2xb64_accum4_low-vram': {
        **V3_R50,
        **QUEUE,
        'optimizer': 'AdamW',
        'lr': 3e-4,
        'weight_decay': 0.1,
        'batch': 512,
        'temperature': 0.2,
        'epochs': 300,
        'dtype': 'bfloat16',
    },
    'mocov3_vit-s_1xb256_cifar10-96px': {
        **V3_VIT,
        **QUEUE,
        'lr': 5e-4,
        'weight_decay': 0.05,
        'batch': 256,
        'm_schedule': 'constant',
        'epochs': 100,
        'warmup': 10,
        'dtype': 'bfloat16',
    },
}
JITTER = {
    'mocov1': (0.4, 0.4, 0.4, 0.4),
    'mocov2': (0.4, 0.4, 0.4, 0.1),
    'mocov3': (0.4, 0.4, 0.2, 0.1),
    'cifar10': (0.4, 0.4, 0.4, 0.1),
}
#: Order of the steps after the crop: first letter, and their probability.
STEPS = {
    'mocov1': ['grey 0.2', 'jitter 1', 'flip 0.5'],
    'mocov2': ['jitter 0.8', 'grey 0.2', 'blur 0.5', 'flip 0.5'],
    'cifar10': ['flip 0.5', 'jitter 0.8', 'grey 0.2'],
}
STEPS_V3 = {
    'view_1': ['jitter 0.8', 'grey 0.2', 'blur 1', 'flip 0.5'],
    'view_2': ['jitter 0.8', 'grey 0.2', 'blur 0.1', 'solar 0.2', 'flip 0.5'],
}


def effective_batch(cfg, name):
    """GPUs and batch as the name has them, with accumulation."""
    gpus, batch = map(int, re.search(r'_(\d+)xb(\d+)', name).groups())
    assert cfg.train_dataloader.batch_size == batch
    return gpus * batch * cfg.optim_wrapper.get('accumulative_counts', 1)


@pytest.mark.parametrize('name', RECIPES)
def test_recipe_is_the_published_one(name):
    cfg, recipe = load_config(name), dict(RECIPES[name])
    wrapper, model = cfg.optim_wrapper, cfg.model
    optimizer = wrapper.optimizer
    assert optimizer.type == recipe['optimizer']
    assert optimizer.weight_decay == recipe['weight_decay']
    assert optimizer.get('momentum', 0.9) == 0.9
    # Decay on everything; LARS leaves out by rank, see test_lars.
    assert 'paramwise_cfg' not in wrapper
    batch = effective_batch(cfg, name)
    scaling = cfg.auto_scale_lr
    lr = optimizer.lr
    if scaling.enable:
        lr *= batch / scaling.base_batch_size
    else:
        assert batch == scaling.base_batch_size
    assert batch == recipe['batch']
    assert lr == pytest.approx(recipe['lr'])
    assert wrapper.get('dtype', 'float32') == recipe['dtype']
    assert model.m == recipe['m']
    assert model.get('m_schedule', 'constant') == recipe['m_schedule']
    assert model.loss.temperature == recipe['temperature']
    assert model.loss.get('scale_by_2tau', False) is name.startswith('mocov3')
    assert model.dictionary.type == recipe['dictionary']
    for key in ('size', 'feat_dim', 'num_negatives', 'momentum', 'key_grad'):
        if key in recipe:
            assert model.dictionary[key] == recipe[key]
    assert cfg.train_cfg.get('max_epochs') == recipe['epochs']
    assert cfg.train_cfg.get('max_iters') == recipe.get('max_iters')
    assert cfg.train_dataloader.drop_last


def step_of(transform):
    kind = transform.type
    if kind == 'FastColorJitter':
        return f'jitter {transform.get("prob", 1.0):g}'
    if kind == 'FastGaussianBlur':
        assert tuple(transform.sigma) == (0.1, 2.0)
        return f'blur {transform.prob:g}'
    if kind == 'FastSolarize':
        assert transform.threshold == 128
        return f'solar {transform.prob:g}'
    if kind == 'FastGrayscale':
        return f'grey {transform.prob:g}'
    assert kind == 'FastFlip' and 'vertical' not in transform
    return f'flip {transform.horizontal:g}'


def jitter_of(view):
    for transform in view:
        if transform.type == 'FastColorJitter':
            return tuple(
                transform[k]
                for k in ('brightness', 'contrast', 'saturation', 'hue')
            )
    raise AssertionError('no jitter')


@pytest.mark.parametrize('name', RECIPES)
def test_views_are_the_published_ones(name):
    cfg, recipe = load_config(name), RECIPES[name]
    load, views = cfg.train_dataloader.dataset.pipeline
    assert (load.type, views.type) == ('LoadRGB', 'Views')
    if recipe['views'] == 'mocov3':
        expected = STEPS_V3
    else:
        names = ['view_q', 'view_k']
        if recipe['dictionary'] == 'MemoryBank':
            names = ['view_q']
        expected = dict.fromkeys(names, STEPS[recipe['views']])
    assert list(views.views) == list(expected)
    for view, steps in expected.items():
        crop, *rest = views.views[view]
        assert crop.type == 'FastRandomResizedCrop'
        scale = crop.get('scale')
        assert (scale and tuple(scale)) == recipe['scale']
        assert [step_of(t) for t in rest] == steps
        assert jitter_of(rest) == JITTER[recipe['views']]


def curve(cfg, epoch_length):
    """The learning rate of every iteration, by the real schedulers."""
    from mmmoco.registry import PARAM_SCHEDULERS

    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=cfg.optim_wrapper.optimizer.lr)
    schedulers = []
    for options in cfg.param_scheduler:
        options = options.to_dict()
        kind = PARAM_SCHEDULERS.get(options.pop('type'))
        if options.pop('convert_to_iter_based', False):
            built = kind.build_iter_from_epoch(
                optimizer=optimizer, epoch_length=epoch_length, **options
            )
        else:
            built = kind(optimizer=optimizer, **options)
        schedulers.append(built)
    rates = []
    for i in range(cfg.train_cfg.max_epochs * epoch_length):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            if not scheduler.by_epoch or (i + 1) % epoch_length == 0:
                scheduler.step()
    return np.array(rates)


OVER_EPOCHS = [n for n in RECIPES if 'max_iters' not in RECIPES[n]]


def compare_learning_rate(name, length=4):
    """Against the formulas of the papers, at every iteration."""
    cfg, recipe = load_config(name), RECIPES[name]
    rates = curve(cfg, length) / cfg.optim_wrapper.optimizer.lr
    total, warmup = recipe['epochs'], recipe.get('warmup')
    epochs = np.arange(total * length) / length
    if warmup is None:  # Once per epoch.
        epochs = np.floor(epochs)
        if recipe['views'] == 'cifar10':
            epochs += 1  # Its authors count from 1.
        expected = 0.5 * (1 + np.cos(np.pi * epochs / total))
        if recipe['views'] == 'mocov1':
            expected = 0.1 ** ((epochs >= 120) + 0.0 + (epochs >= 160))
    else:
        progress = (epochs - warmup) / (total - warmup)
        expected = np.where(
            epochs < warmup,
            epochs / warmup,
            0.5 * (1 + np.cos(np.pi * progress)),
        )
        after = epochs >= warmup
        # Not once an epoch.
        assert len(set(rates[after][:length])) == length
    yield Comparison(
        f'learning rate, {name}',
        "its authors' formula",
        float(np.abs(rates - expected).max()),
        1e-9,
        'of the base rate',
        f'{total} epochs, every iteration',
    )


@pytest.mark.parametrize('name', OVER_EPOCHS)
def test_learning_rate_over_time(name):
    check(compare_learning_rate(name))


def all_comparisons():
    for name in OVER_EPOCHS:
        yield from compare_learning_rate(name)


def test_the_iteration_based_recipe():
    cfg = load_config('mocov1_r50_64xb16_1250k')
    (step,) = cfg.param_scheduler
    assert (step.type, step.step_size, step.gamma, step.by_epoch) == (
        'StepLR',
        62500,
        0.9,
        False,
    )
    assert cfg.train_cfg.type == 'IterBasedTrainLoop'
    assert cfg.train_dataloader.sampler.infinite
    assert not cfg.log_processor.by_epoch
    assert not cfg.default_hooks.checkpoint.by_epoch


@pytest.mark.parametrize(
    'name', [n for n in RECIPES if n.startswith('mocov3')]
)
def test_heads_of_v3_are_the_published_ones(name):
    from torch.nn import Linear, ReLU

    model = build_without_memory(load_config(name))
    vit = 'vit' in name

    def rows(head):
        found = []
        for layer_name, layer in head.named_children():
            if isinstance(layer, Linear):
                assert layer.bias is None, layer_name
                found.append(layer.out_features)
            elif 'bn' in layer_name:
                found.append('affine' if layer.affine else 'plain')
            else:
                assert isinstance(layer, ReLU) or 'pool' in layer_name
        return found

    hidden = [4096, 'affine']
    assert rows(model.neck) == hidden * (2 if vit else 1) + [256, 'plain']
    assert rows(model.predictor) == hidden + [256] + ['plain'] * vit
    heads = (model.neck, model.predictor)
    kinds = {type(m).__name__ for h in heads for m in h.modules()}
    one_gpu = '_1xb' in name
    assert ('BatchNorm1d' in kinds) == one_gpu
    assert ('SyncBatchNorm' in kinds) == (not one_gpu)
    if vit:
        assert model.backbone.arch_settings['num_heads'] in (12, 16)
        frozen = [
            n
            for n, p in model.backbone.named_parameters()
            if not p.requires_grad
        ]
        projection = [
            f'patch_embed.projection.{p}' for p in ('weight', 'bias')
        ]
        expected = [] if 'conv' in name else projection
        assert frozen == ['pos_embed', *expected]
    else:
        assert model.backbone.zero_init_residual
        assert all(p.requires_grad for p in model.backbone.parameters())


@pytest.mark.parametrize('name', [n for n in RECIPES if 'mocov3' not in n])
def test_backbones_of_v1_and_v2_start_as_published(name):
    backbone = load_config(name).model.backbone
    assert backbone.zero_init_residual is False
    expected = 'SplitBN' if '_1xb' in name else 'BN'  # not synchronised
    assert backbone.norm_cfg.type == expected


def test_large_vit_recomputes_its_activations():
    cfg = load_config('mocov3_vit-l_64xb64_300e')
    layers = build_without_memory(cfg).backbone.layers
    assert {type(layer).__name__ for layer in layers} == {'_CheckpointedLayer'}
    cfg = load_config('mocov3_vit-b_64xb64_300e')
    layers = build_without_memory(cfg).backbone.layers
    assert '_CheckpointedLayer' not in {type(x).__name__ for x in layers}


def test_cifar10_is_the_small_recipe_of_the_authors():
    cfg = load_config('mocov2_r18_1xb512_cifar10')
    backbone = build_without_memory(cfg).backbone
    assert backbone.conv1.kernel_size == (3, 3)
    assert backbone.conv1.stride == (1, 1)
    x = torch.zeros(8, 3, 32, 32, device='meta')
    assert backbone(x)[0].shape == (8, 512, 4, 4)  # no pooling at the start
    assert cfg.model.backbone.norm_cfg.num_splits == 8
    np.testing.assert_allclose(
        np.array(cfg.model.data_preprocessor.mean) / 255,
        (0.4914, 0.4822, 0.4465),
        atol=1e-6,
    )
    np.testing.assert_allclose(
        np.array(cfg.model.data_preprocessor.std) / 255,
        (0.2023, 0.1994, 0.2010),
        atol=1e-6,
    )
    knn = cfg.knn
    assert (knn.k, knn.temperature, knn.features) == (200, 0.1, 'neck')
    assert cfg.train_dataloader.dataset.data_prefix == 'train'
    assert knn.bank.dataset.data_prefix == 'train'
    assert knn.query.dataset.data_prefix == 'test'
    kinds = [t.type for t in knn.query.dataset.pipeline]
    assert kinds == ['LoadRGB', 'PackImage']  # raw 32×32
    assert any(h.type == 'KNNHook' for h in cfg.custom_hooks)


# ------------------------------------------------- one step of each, cut down

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
    'MoCoV3ViT': dict(arch=TINY_VIT, img_size=32),
    'VisionTransformer': dict(arch=TINY_VIT, img_size=28),
}
WIDTHS = {'ResNeXt': 256, 'PlainConvNet': 128, 'MoCoV3ViT': 48}
DICTIONARIES = {
    'Queue': dict(size=64, feat_dim=16),
    'MemoryBank': dict(size=16, feat_dim=16, num_negatives=8),
    'InBatch': {},
}
SMALL_BATCH = 16
SENTINEL_2 = [f'B{i}' for i in range(1, 13)] + ['B8A']


def cut(cfg, folder):
    """Apply the table above, 32-pixel images of a folder, 16 a batch."""
    model = cfg.model
    for part in ('backbone', 'teacher'):
        if part not in model:
            continue
        kind = model[part].type.split('.')[-1]
        was = model[part].get('arch', '')
        model[part].update(CUTS[kind])
        model[part].pop('init_cfg', None)
        if 'conv' in str(was):
            model[part].arch = {**TINY_VIT, 'conv_stem': True}
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
    if dataset.type == 'ImageFolderDataset':
        dataset.data_root = str(folder)
        dataset.data_prefix = ''
        for name, view in dataset.pipeline[1].views.items():
            view[0].size = 16 if name.startswith('local') else 32
    elif dataset.type == 'SeasonalPlaces':
        dataset.data_root, dataset.data_prefix = str(folder / 'places'), ''
        for view in dataset.pipeline[0].views.values():
            view[0].size = 32
    else:
        dataset.num_scenes = SMALL_BATCH


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    draws = np.random.default_rng(0)
    for i in range(SMALL_BATCH):
        pixels = draws.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f'{i:02}.png')
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

    cfg = load_config(name)
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

    cfg = load_config(name)
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


# ------------------------------------------------------------------ the zoo


def test_readme_and_metafile_name_every_config_and_no_other():
    import yaml

    readme = (config_root() / 'README.md').read_text()
    detectors = [n for n in NAMES if n.startswith('benchmarks/mmdet')]
    for name in (*OWN, *detectors):
        assert f'`{name}`' in readme, name
    named = re.findall(r'`([a-z]\w*_[\w-]*\dxb[\w-]*|demo/[\w-]+)`', readme)
    assert set(named) <= set(NAMES)
    meta = yaml.safe_load((config_root() / 'metafile.yml').read_text())
    collections = {c['Name'] for c in meta['Collections']}
    for entry in meta['Models']:
        assert entry['In Collection'] in collections
        config = Path(entry['Config'])
        assert config.parts[0] == 'configs'
        name = config.relative_to('configs').with_suffix('').as_posix()
        assert name in NAMES
        assert entry['Name'] == name
        assert entry['Metadata']['Source'] == 'published by the authors'
        if name in PARAMETERS:
            assert entry['Metadata']['Parameters'] == PARAMETERS[name]
        for result in entry['Results']:
            (figure,) = result['Metrics'].values()
            assert str(figure) in resolve_config(name).read_text()
            row = next(
                r for r in readme.splitlines() if r.startswith(f'| `{name}`')
            )
            assert str(figure) in row


def test_base_of_another_package(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(
        "_base_ = 'mmmoco::mocov2_r50_8xb32.py'\n"
        'model = dict(loss=dict(temperature=0.1))\n'
    )
    cfg = load_config(str(path))
    assert cfg.model.loss.temperature == 0.1
    assert cfg.model.dictionary.size == 65536


@pytest.mark.downstream
@pytest.mark.parametrize(
    'base',
    [
        'mmpretrain::resnet/resnet50_8xb32_in1k.py',
        'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
        'mmseg::fcn/fcn_r50-d8_4xb4-20k_voc12aug-512x512.py',
    ],
)
def test_configs_of_the_other_libraries(base, tmp_path):
    assert load_config(base).model.backbone.type.startswith('ResNet')
    path = tmp_path / 'mine.py'
    path.write_text(f"_base_ = '{base}'\n")
    inherited = load_config(str(path)).model.to_dict()
    assert inherited.pop('_scope_') == base.partition('::')[0]
    assert inherited == load_config(base).model.to_dict()


def test_unknown_names_suggest_known_ones():
    with pytest.raises(FileNotFoundError, match='mocov2_r50_8xb32'):
        resolve_config('mocov2_r51')
    with pytest.raises(FileNotFoundError, match='nowhere::'):
        resolve_config('nowhere::x.py')
    with pytest.raises(KeyError, match='modle'):
        load_config('mocov2_r50_8xb32', {'modle.m': 0.9})


def test_the_type_of_the_data_can_be_changed_on_the_command_line():
    options = {
        'train_dataloader.dataset.type': 'TarShards',
        'train_dataloader.dataset.data_root': '/shards',
    }
    dataset = load_config('mocov2_r50_8xb32', options).train_dataloader.dataset
    assert set(dataset) == {'type', 'data_root', 'pipeline'}
    # What is given stays, to be refused when it is built.
    options['train_dataloader.dataset.data_prefix'] = 'x'
    dataset = load_config('mocov2_r50_8xb32', options).train_dataloader.dataset
    assert dataset.data_prefix == 'x'


def test_the_checkout_and_the_package_show_the_same_configs():
    root = config_root()
    assert (root / '_base_' / 'default_runtime.py').is_file()
    assert Path(root).name == 'configs'
