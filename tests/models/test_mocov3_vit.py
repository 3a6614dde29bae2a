"""The ViTs of MoCo v3: what is fixed, what is trained, how it starts."""

import copy
import logging
import math

import pytest
import torch
from torch import nn

import mmmoco.models  # noqa: F401
from mmmoco.models.backbones.frozen_projection import freeze_first_conv
from mmmoco.models.backbones.mocov3_vit import (
    ARCHS,
    MoCoV3ViT,
    sincos_positions,
)
from mmmoco.registry import MODELS

TINY = dict(embed_dims=32, num_layers=2, num_heads=4, feedforward_channels=64)
STEM = {**TINY, 'conv_stem': True}


def vit(arch=TINY, img_size=32, **kwargs):
    model = MoCoV3ViT(arch=arch, img_size=img_size, **kwargs)
    model.init_weights()
    return model


def train(model, steps=3, channels=3):
    """Train with decay, which would move what merely has no gradient."""
    before = copy.deepcopy(dict(model.named_parameters()))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=0.01, weight_decay=0.1
    )
    for _ in range(steps):
        x = torch.randn(4, channels, 32, 32)
        (feature,) = model(x)
        (feature.flatten(1)[:, 0] ** 2 + feature.sum()).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return {
        name
        for name, p in model.named_parameters()
        if torch.equal(p, before[name])
    }


def test_only_the_patch_projection_and_the_positions_stay():
    model = vit()
    stayed = train(model)
    assert stayed == {
        'pos_embed',
        'patch_embed.projection.weight',
        'patch_embed.projection.bias',
    }


def test_a_trained_projection_moves_and_the_positions_stay():
    assert train(vit(stop_grad_conv1=False)) == {'pos_embed'}


@pytest.mark.parametrize(
    ('stop', 'stays'),
    [
        (None, {'pos_embed'}),
        (True, {'pos_embed', 'patch_embed.projection.0.weight'}),
    ],
)
def test_a_stem_is_trained_unless_asked_otherwise(stop, stays):
    model = vit(STEM, stop_grad_conv1=stop)
    # The bias before a LayerNorm-free sum still has a gradient.
    assert train(model) == stays


@pytest.mark.parametrize('stop', [False, True])
def test_resnet_freezes_its_first_convolution_on_demand(stop):
    model = MODELS.build(
        dict(
            type='MoCoV3ResNet',
            depth=18,
            stem_channels=8,
            base_channels=8,
            stop_grad_conv1=stop,
        )
    )
    assert train(model) == ({'conv1.weight'} if stop else set())


DEPTH = TINY['num_layers']


@pytest.mark.parametrize('frozen', range(-1, DEPTH + 1))
@pytest.mark.parametrize('stop', [None, False, True])
@pytest.mark.parametrize('arch', [TINY, STEM], ids=['patches', 'stem'])
@pytest.mark.parametrize('cls', [True, False])
def test_frozen_stages_and_the_first_convolution(frozen, stop, arch, cls):
    """Every pair of the two options; positions never move."""
    out = {} if cls else dict(out_type='avg_featmap', with_cls_token=False)
    model = vit(
        arch,
        frozen_stages=frozen,
        stop_grad_conv1=stop,
        drop_rate=0.1,
        drop_path_rate=0.1,
        **out,
    )
    stays = {'pos_embed'}
    first = 'projection.0' if arch is STEM else 'projection'
    if stop or (stop is None and arch is TINY):
        stays |= {
            n
            for n, _ in model.named_parameters()
            if n.startswith(f'patch_embed.{first}.')
        }
    before = ['patch_embed.', 'cls_token', 'drop_after_pos.']
    tops = before if frozen >= 0 else []
    tops += [f'layers.{i}.' for i in range(frozen)]
    tops += ['ln1.', 'ln2.'] if frozen == DEPTH else []
    stays |= {
        n
        for n, _ in model.named_parameters()
        if n.startswith(tuple(tops) or '?')
    }
    statistics = {
        n: b.clone() for n, b in model.named_buffers() if 'running_' in n
    }
    model.eval()
    model.train()
    found = {n for n, p in model.named_parameters() if not p.requires_grad}
    assert found == stays
    for name, module in model.named_modules():
        below = [n for n in tops if f'{name}.'.startswith(n)]
        assert module.training == (not below), name
    if stays != {n for n, _ in model.named_parameters()}:
        assert train(model, steps=2) >= stays
    # The statistics of a frozen stem stay, those of a trained one move.
    for name, value in statistics.items():
        same = torch.equal(model.get_buffer(name), value)
        assert same == (frozen >= 0), name


def test_frozen_stages_beyond_the_blocks_are_refused():
    for wrong in (-2, DEPTH + 1):
        with pytest.raises(ValueError, match=f'frozen_stages={wrong}.*2'):
            vit(frozen_stages=wrong)


def test_a_frozen_convolution_counts_as_frozen():
    stem = dict(type='MoCoV3ResNet', depth=18, frozen_stages=0)
    for stop in (False, True):
        model = MODELS.build(stem | dict(stop_grad_conv1=stop))
        assert not model.conv1.weight.requires_grad
        assert model.layer1[0].conv1.weight.requires_grad
    frozen = nn.Conv2d(3, 4, 3).requires_grad_(False)
    assert freeze_first_conv(nn.Sequential(frozen), 'Owner') is frozen


def test_no_convolution_is_an_error_and_success_is_logged(caplog):
    with pytest.raises(RuntimeError, match=r'Owner.*stop_grad_conv1=False'):
        freeze_first_conv(nn.Linear(2, 2), 'Owner')
    from mmengine.logging import MMLogger

    logger = MMLogger.get_instance('frozen_conv', log_level='INFO')
    logger.addHandler(caplog.handler)
    caplog.set_level(logging.INFO)
    vit()
    assert 'froze the first convolution, 24608 parameters' in caplog.text


def test_frozen_before_a_distributed_wrapper_could_see_it():
    model = MoCoV3ViT(arch=TINY, img_size=32)  # no init_weights()
    assert not model.patch_embed.projection.weight.requires_grad
    assert not model.pos_embed.requires_grad
    model.init_weights()
    model.train()
    assert not model.pos_embed.requires_grad


def test_positions_are_those_of_the_paper():
    """In plain loops: column, then row, a quarter of the channels each."""
    height, width, dims = 2, 3, 8
    table = sincos_positions(height, width, dims)
    rows = []
    for column in range(width):
        for row in range(height):
            waves = [10000 ** (-i / 2) for i in range(2)]
            rows.append(
                [math.sin(column * w) for w in waves]
                + [math.cos(column * w) for w in waves]
                + [math.sin(row * w) for w in waves]
                + [math.cos(row * w) for w in waves]
            )
    torch.testing.assert_close(table, torch.tensor(rows))
    model = vit(img_size=48)
    assert not model.pos_embed[0, 0].any()
    torch.testing.assert_close(
        model.pos_embed[0, 1:], sincos_positions(3, 3, 32)
    )
    with pytest.raises(ValueError, match='multiple of 4'):
        sincos_positions(2, 2, 6)


def test_positions_equal_those_of_mmpretrain():
    """Else their checkpoints would mean other places."""
    from mmpretrain.models.utils import build_2d_sincos_position_embedding

    theirs = build_2d_sincos_position_embedding((2, 3), 16)
    torch.testing.assert_close(theirs[0], sincos_positions(2, 3, 16))


def test_initial_values_are_the_published_ones():
    torch.manual_seed(0)
    model = vit(dict(TINY, embed_dims=96, feedforward_channels=384))
    checks = {
        'patch_embed.projection.weight': 6 / (3 * 16**2 + 96),
        'layers.0.attn.qkv.weight': 6 / (96 + 96),
        'layers.0.attn.proj.weight': 6 / (96 + 96),
        'layers.1.ffn.layers.0.0.weight': 6 / (96 + 384),
        'layers.1.ffn.layers.1.weight': 6 / (96 + 384),
    }
    for name, square in checks.items():
        weight = model.get_parameter(name)
        bound = math.sqrt(square)
        assert weight.abs().max() <= bound
        assert weight.abs().max() > 0.98 * bound
        spread = weight.std().item()
        assert spread == pytest.approx(bound / math.sqrt(3), rel=0.05)
        assert not model.get_parameter(name.replace('weight', 'bias')).any()
    assert 0 < model.cls_token.std() < 3e-6
    assert {m.eps for m in model.modules() if isinstance(m, nn.LayerNorm)} == {
        1e-6
    }


def test_the_class_table_of_the_parent_stays_as_it_was():
    from mmpretrain.models.backbones import VisionTransformer

    before = copy.deepcopy(VisionTransformer.arch_zoo)
    with torch.device('meta'):
        model = MoCoV3ViT(arch='small')
    assert VisionTransformer.arch_zoo == before
    assert model.arch_settings['num_heads'] == 12
    assert model.embed_dims == 384  # 'small' of mmpretrain has 768
    with pytest.raises(ValueError, match='conv-base'):
        MoCoV3ViT(arch='tiny')
    assert ARCHS['conv-small'] == {
        **ARCHS['small'],
        'num_layers': 11,
        'conv_stem': True,
    }


def test_weights_load_into_mmpretrain_and_give_its_features():
    model = vit()
    other = MODELS.build(
        dict(type='mmpretrain.VisionTransformer', arch=TINY, img_size=32)
    )
    other.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(x)[0], other(x)[0])


@pytest.mark.parametrize('arch', [TINY, STEM], ids=['patches', 'stem'])
@pytest.mark.parametrize(
    ('size', 'grid'), [(96, 6), (224, 14), (100, 7)], ids=str
)
def test_any_image_size(arch, size, grid):
    model = vit(arch, img_size=size, out_type='featmap')
    (out,) = model(torch.randn(2, 3, size, size))
    assert out.shape == (2, 32, grid, grid)
    # And another than the one it was built for: positions are resized.
    (out,) = model(torch.randn(2, 3, 64, 64))
    assert out.shape == (2, 32, 4, 4)


@pytest.mark.parametrize('arch', [TINY, STEM], ids=['patches', 'stem'])
def test_thirteen_bands(arch):
    model = vit(arch, in_channels=13)
    assert 'pos_embed' in train(model, channels=13)
    if arch is TINY:
        bound = math.sqrt(6 / (13 * 16**2 + 32))
        assert model.patch_embed.projection.weight.abs().max() <= bound


def test_the_stem_as_published():
    model = vit(STEM)
    layers = model.patch_embed.projection
    shapes = [
        (m.in_channels, m.out_channels, m.kernel_size[0], m.stride[0])
        for m in layers
        if isinstance(m, nn.Conv2d)
    ]
    assert shapes == [
        (3, 4, 3, 2),
        (4, 8, 3, 2),
        (8, 16, 3, 2),
        (16, 32, 3, 2),
        (32, 32, 1, 1),
    ]
    biases = [m.bias is not None for m in layers if isinstance(m, nn.Conv2d)]
    assert biases == [False, False, False, False, True]
    kinds = [type(m).__name__ for m in layers]
    assert kinds == ['Conv2d', 'BatchNorm2d', 'ReLU'] * 4 + ['Conv2d']
    with pytest.raises(ValueError, match='patch_size=8'):
        vit(STEM, patch_size=8)
    with pytest.raises(ValueError, match='multiple of 8'):
        vit(dict(STEM, embed_dims=36))


def test_recomputed_activations_change_nothing():
    torch.manual_seed(0)
    plain = vit()
    frugal = vit(with_cp=True)
    frugal.load_state_dict(plain.state_dict())
    assert [n for n, _ in frugal.named_modules()] == [
        n for n, _ in plain.named_modules()
    ]
    x = torch.randn(2, 3, 32, 32)
    for model in (plain, frugal):
        model(x)[0].square().sum().backward()
    for (name, a), b in zip(
        plain.named_parameters(), frugal.parameters(), strict=True
    ):
        assert (a.grad is None) == (b.grad is None), name
        if a.grad is not None:
            torch.testing.assert_close(a.grad, b.grad)
    # Fewer tensors are kept for the backward pass.
    kept = []
    for model in (plain, frugal):
        count = 0

        def pack(tensor):
            nonlocal count
            count += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            model(x)
        kept.append(count)
    assert kept[1] < kept[0] / 2
    # A copy, as the key encoder makes it, computes with its own weights.
    twin = copy.deepcopy(frugal)
    nn.init.zeros_(twin.ln1.weight)
    assert not twin(x)[0].any() and frugal(x)[0].any()


def test_weights_of_a_file_replace_the_initial_ones(tmp_path):
    source = vit()
    nn.init.ones_(source.cls_token)
    path = tmp_path / 'vit.pth'
    torch.save(
        {
            'state_dict': {
                f'backbone.{k}': v for k, v in source.state_dict().items()
            }
        },
        path,
    )
    model = MoCoV3ViT(
        arch=TINY,
        img_size=48,
        init_cfg=dict(
            type='Pretrained', checkpoint=str(path), prefix='backbone.'
        ),
    )
    model.init_weights()
    assert (model.cls_token == 1).all()
    assert model.pos_embed.shape == (1, 10, 32)  # resized from 2x2 patches
    assert not model.pos_embed.requires_grad
