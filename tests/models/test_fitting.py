"""Backbones and what follows them: widths are derived, or one line says."""

import pytest
import torch

import mmmoco
from mmmoco.models.encoders.fitting import build_neck, shapes_of
from mmmoco.registry import MODELS, in_scope_of
from tests.conftest import optional

VIT = dict(embed_dims=48, num_layers=1, num_heads=4, feedforward_channels=48)


def neck(**options):
    return dict(
        type='mmpretrain.MoCoV2Neck',
        in_channels=None,
        hid_channels=8,
        out_channels=8,
        **options,
    )


def theirs(kind, **options):
    return dict(type=f'mmpretrain.{kind}', **options)


@pytest.fixture(autouse=True)
def scope():
    with in_scope_of({}):
        yield


def encoder(backbone, **options):
    module = MODELS.build(backbone)
    return module, build_neck({**neck(), **options}, module, backbone)


#: A backbone of every kind, and the width of its last output.
KINDS = [
    (theirs('ResNet', depth=18, stem_channels=8, base_channels=8), 64),
    (theirs('ConvNeXt', arch=dict(depths=[1] * 4, channels=[8] * 4)), 8),
    (theirs('VisionTransformer', arch=VIT, img_size=32), 48),
    (
        theirs('VisionTransformer', arch=VIT, img_size=(32, 64)),
        48,
    ),
    (
        theirs(
            'SwinTransformer',
            arch=dict(embed_dims=8, depths=[1] * 4, num_heads=[1] * 4),
        ),
        64,
    ),
    (theirs('MobileNetV2', widen_factor=0.25), 1280),
    (theirs('EfficientNet', arch='b0'), 1280),
    (theirs('HRNet', arch='w18'), 144),
    (dict(type='PlainConvNet', in_channels=1), 128),
    (dict(type='MoCoV3ViT', arch=VIT, img_size=32), 48),
]


@pytest.mark.parametrize(
    ('backbone', 'width'), KINDS, ids=[k['type'] for k, _ in KINDS]
)
def test_the_width_is_derived(backbone, width):
    module, built = encoder(backbone)
    assert built.mlp[0].in_features == width


def test_several_outputs_give_their_last():
    backbone = {**KINDS[0][0], 'out_indices': (0, 1, 2, 3)}
    module, built = encoder(backbone)
    module.eval()
    outputs = module(torch.randn(2, 3, 32, 32))
    assert len(outputs) == 4
    torch.testing.assert_close(built(outputs)[0], built(outputs[-1:])[0])


def test_asking_leaves_no_trace():
    """Weights, statistics, modes and the generators stay as they are."""
    module = MODELS.build(
        {**KINDS[0][0], 'frozen_stages': 1, 'norm_eval': True}
    )
    module.train()
    before = {n: x.clone() for n, x in module.state_dict().items()}
    modes = [x.training for x in module.modules()]
    random = torch.get_rng_state()
    assert shapes_of(module, 3, (32, 32)) == [(2, 64, 1, 1)]
    assert torch.equal(random, torch.get_rng_state())
    assert modes == [x.training for x in module.modules()]
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(
    ('backbone', 'options', 'said'),
    [
        (KINDS[0][0], dict(in_channels=2048), 'in_channels=2048.* gives 64'),
        (KINDS[2][0], dict(in_channels=64), 'in_channels=64.* gives 48'),
        (
            {**KINDS[2][0], 'out_type': 'raw'},
            {},
            'gives N×5×48.*out_type',
        ),
        (
            KINDS[0][0],
            dict(with_avg_pool=False),
            '64 channels.*with_avg_pool=True',
        ),
    ],
)
def test_what_does_not_fit_is_one_line(backbone, options, said):
    with pytest.raises(ValueError, match=said) as caught:
        encoder(backbone, **options)
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('config', 'place', 'width'),
    [
        ('mocov2_r50_8xb32', 'neck.out_channels', 128),
        ('mocov2_r50_8xb32', 'dictionary.feat_dim', 128),
        ('mocov1_r50_8xb32_memory-bank', 'dictionary.feat_dim', 128),
        ('mocov3_r50_16xb256_100e', 'neck.out_channels', 256),
        ('mocov3_r50_16xb256_100e', 'predictor.in_channels', 256),
        ('mocov3_r50_16xb256_100e', 'predictor.out_channels', 256),
        ('mocov3_r50_2xb64_accum4_low-vram', 'dictionary.feat_dim', 256),
    ],
)
def test_what_follows_a_neck_is_as_wide(config, place, width):
    """Both widths are named, and nothing is built before."""
    cfg = mmmoco.load_config(config, {f'model.{place}': 24})
    cfg.model.backbone = dict(type='Unbuilt')
    with pytest.raises(ValueError, match=r'model\..*=\d+, but') as caught:
        MODELS.build(cfg.model)
    said = str(caught.value)
    assert f'{place}=24' in said and f'={width}' in said.replace('24', '')


@MODELS.register_module(force=True)
class Unasked(torch.nn.Module):
    """A backbone that needs values."""

    def forward(self, x):
        return (x.new_tensor(x.mean().tolist()),)


def test_what_cannot_be_asked_is_told_or_believed():
    with pytest.raises(ValueError, match='set model.neck.in_channels'):
        encoder(dict(type='Unasked'))
    _, built = encoder(dict(type='Unasked'), in_channels=5)
    assert built.mlp[0].in_features == 5


@pytest.mark.parametrize('config', ['mocov2_r50_8xb32', 'mocov1_r50_8xb32'])
@pytest.mark.parametrize('backbone', [0, 1, 2])
def test_a_method_trains_on_another_backbone(config, backbone):
    cfg = mmmoco.load_config(config)
    cfg.model.backbone = KINDS[backbone][0]
    cfg.model.dictionary.size = 8
    model = MODELS.build(cfg.model)
    x = torch.randn(2, 3, 32, 32)
    assert model.train().encode_query(x).shape == (2, 128)
    assert model.keys_of(x).shape == (2, 128)


def test_channels_and_statistics_agree():
    options = {
        'model.backbone.depth': 18,
        'model.backbone.in_channels': 1,
        'model.dictionary.size': 8,
    }
    cfg = mmmoco.load_config('mocov2_r50_8xb32', options)
    with pytest.raises(ValueError, match=r'3 value.* 1 channel'):
        MODELS.build(cfg.model)
    cfg.model.data_preprocessor.update(mean=(120.0,), std=(60.0,))
    model = MODELS.build(cfg.model)
    grey = {'inputs': {'x': torch.zeros(2, 1, 8, 8, dtype=torch.uint8)}}
    model.data_preprocessor(grey)
    colour = {'inputs': {'x': torch.zeros(2, 3, 8, 8, dtype=torch.uint8)}}
    with pytest.raises(ValueError, match='LoadBands'):
        model.data_preprocessor(colour)


def test_heads_of_tokens_follow_the_backbone():
    cfg = mmmoco.load_config('mmc_vit-b_4xb64_400e')
    cfg.model.backbone.update(arch=VIT, img_size=32)
    for head in ('pat', 'cls'):
        cfg.model.heads[head].projector.hid_channels = 8
    assert MODELS.build(cfg.model).heads.rec.to_pixels.in_channels == 48
    cfg.model.heads.rec.in_channels = 64
    with pytest.raises(ValueError, match='rec.in_channels=64.* 48'):
        MODELS.build(cfg.model)


@pytest.mark.parametrize(
    ('name', 'options', 'dims'),
    [
        ('resnet10t', {}, 4),
        ('vit_tiny_patch16_224', dict(img_size=64, depth=1), 2),
        (
            'swin_tiny_patch4_window7_224',
            dict(img_size=56, depths=(1, 1, 1, 1)),
            2,
        ),
    ],
)
def test_models_of_timm(name, options, dims):
    optional('timm')
    backbone = dict(type='TimmBackbone', model_name=name, **options)
    module, built = encoder({**backbone, 'in_channels': 4})
    side = options.get('img_size', 64)
    outputs = module(torch.randn(2, 4, side, side))
    assert outputs[-1].dim() == dims and built(outputs)[-1].shape == (2, 8)
    assert all(key.startswith('timm_model.') for key in module.state_dict())


def test_timms_tokens_need_our_wrapper():
    timm = optional('timm')
    backbone = theirs(
        'TIMMBackbone', model_name='vit_tiny_patch16_224', depth=1
    )
    with pytest.raises(ValueError, match=r'N×197×192.*TimmBackbone'):
        encoder(backbone)
    assert timm.is_model('resnet18')
    with pytest.raises(ValueError, match="'resnett18'"):
        MODELS.build(dict(type='TimmBackbone', model_name='resnett18'))
