"""Networks read off their tensors, held against the networks themselves."""

import pytest
import torch
from mmengine.config import Config

from mmmoco.apis import load_config
from mmmoco.convert.anatomy import below, describe_backbone, describe_model
from mmmoco.convert.importing import import_weights
from mmmoco.engine.without_memory import build_without_memory

from . import layouts

RESNETS = [
    'mocov1_r50w2x_8xb32',
    'mocov1_rx50_8xb32',
    'mocov2_r18_1xb512_cifar10',
    'mocov2_r50_8xb32',
    'mocov3_r50_16xb256_100e',
]


def shapes(model):
    cfg = Config(dict(model=model, default_scope='mmmoco'))
    module = build_without_memory(cfg)
    return {k: tuple(v.shape) for k, v in module.state_dict().items()}


@pytest.mark.parametrize('name', RESNETS)
def test_shipped_configs_are_read_off_their_shapes(name):
    module = build_without_memory(load_config(name))
    weights = module.state_dict()
    described = describe_model(weights)
    expected = {k: tuple(v.shape) for k, v in weights.items()}
    assert shapes(described) == expected
    if 'cifar' not in name:  # one linear layer under the name of v2
        assert described['type'] == load_config(name).model.type


@pytest.mark.parametrize('exclude', ['image', 'group'])
def test_a_queue_tells_what_it_excludes(exclude):
    cfg = load_config('mocov2_r18_1xb512_cifar10')
    cfg.model.dictionary.exclude = exclude
    weights = build_without_memory(cfg).state_dict()
    assert describe_model(weights)['dictionary']['exclude'] == exclude


@pytest.mark.parametrize(
    'layout', ['mocov3 vit', 'mocov3 conv stem', 'dinov2', 'timm vit']
)
def test_transformers_are_read_off_their_shapes(layout):
    checkpoint = layouts.ALL[layout][0]()
    state = checkpoint.get('state_dict', checkpoint)
    state = {k.removeprefix('module.'): v for k, v in state.items()}
    weights = import_weights(state).weights
    backbone = below(weights, 'backbone.')
    described = describe_backbone(backbone)
    expected = {k: tuple(v.shape) for k, v in backbone.items()}
    assert shapes(described) == expected
    fixed = layout.startswith('mocov3')
    assert described['type'].endswith('MoCoV3ViT') == fixed


def test_heads_of_a_small_vit_depend_on_its_positions():
    """MoCo v3's has 12, DeiT's and DINO's 6: no shape tells the difference."""
    for fixed, heads in ((True, 12), (False, 6)):
        net = layouts.vit(fixed, width=384, depth=1, heads=heads)
        weights = import_weights(net.state_dict()).weights
        backbone = below(weights, 'backbone.')
        assert describe_backbone(backbone)['arch']['num_heads'] == heads
        assert describe_backbone(backbone, 8)['arch']['num_heads'] == 8
        with pytest.raises(ValueError, match='does not divide'):
            describe_backbone(backbone, 7)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda w: w.pop('conv1.weight'), 'conv1.weight not found'),
        (
            lambda w: [w.pop(k) for k in list(w) if k.startswith('layer4.1')],
            r'\(2, 2, 2, 1\)',
        ),
        (lambda w: w.pop('layer1.0.conv1.weight'), 'cannot be told'),
        (
            lambda w: w.update(
                {'layer1.0.conv2.weight': torch.zeros(32, 32, 3, 3)}
            ),
            '',
        ),
    ],
)
def test_what_is_not_recognised_asks_for_a_config(change, message):
    weights = below(
        import_weights(layouts.resnet().state_dict()).weights, 'backbone.'
    )
    change(weights)
    if message:
        with pytest.raises(ValueError, match=message) as error:
            describe_backbone(weights)
        assert '--config' in str(error.value)
    else:
        assert describe_backbone(weights)['base_channels'] == 32
