"""The recipes are the published ones."""

import re

import numpy as np
import pytest
import torch

from mmmoco.apis import load_config
from mmmoco.engine.without_memory import build_without_memory

from ..comparison import Comparison, check

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
    'mocov2_r50_8xb32_mochi': V2,
    'densecl_r50_8xb32_200e': V2,
    'densecl_r50_8xb32_coco_800e': {**V2, 'lr': 0.3, 'epochs': 800},
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


def test_densecl_is_moco_v2_with_its_heads_and_two_queues():
    cfg = load_config('densecl_r50_8xb32_coco_800e')
    model = build_without_memory(cfg)
    assert cfg.model.loss_lambda == 0.5 and model.warmup_iters == 0
    assert [d.keys.shape for d in model.dictionaries] == [(128, 65536)] * 2
    assert [*model.neck.mlp2[2].weight.shape] == [128, 2048, 1, 1]
    init = model.neck.init_cfg
    assert (init['type'], init['layer']) == ('Kaiming', 'Linear')
    dataset = cfg.train_dataloader.dataset
    assert (dataset.data_root, dataset.data_prefix) == (
        'data/coco',
        'train2017',
    )
    assert not dataset.prefix_optional  # val2017 lies beside it


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
