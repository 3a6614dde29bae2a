"""Tokens of timm's transformers: registers are told from patches."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from torch import nn

import mmmoco
from mmmoco.apis.dense.features import ModelFeatures
from mmmoco.apis.probing.extract_features import Encoder, Part
from mmmoco.models.algorithms.tokens import split_tokens
from mmmoco.models.backbones import TimmBackbone

from ..conftest import optional

SMALL = dict(embed_dim=32, depth=1, num_heads=2)
WITH_REGISTERS = {
    'vit_small_patch14_reg4_dinov2': dict(img_size=56, dynamic_img_size=True),
    'vit_small_patch16_dinov3_qkvb': {},
}
SIDES = {'vit_small_patch14_reg4_dinov2': 56}


def config(name, **options):
    backbone = dict(type='mmmoco.TimmBackbone', model_name=name)
    backbone |= {**SMALL, **WITH_REGISTERS.get(name, {}), **options}
    return Config(
        dict(
            default_scope='mmmoco',
            model=dict(
                type='mmmoco.BackboneOnly',
                backbone=backbone,
                data_preprocessor=dict(
                    type='mmmoco.ViewAugmentor', mean=[120.0], std=[60.0]
                ),
            ),
        )
    )


def planted(cfg, path):
    """Write weights whose registers are outliers, as DINOv3's are."""
    optional('timm')
    torch.manual_seed(0)
    cfg.model.backbone.in_channels = 1
    model = mmmoco.get_model(cfg)
    with torch.no_grad():
        model.backbone.timm_model.reg_token[..., 0] = 1e4
    torch.save({'state_dict': model.state_dict()}, path)
    return model.eval()


@pytest.mark.parametrize('name', WITH_REGISTERS)
def test_registers_are_in_no_feature(name, tmp_path):
    path = str(tmp_path / 'planted.pth')
    side = SIDES.get(name, 64)
    cfg = config(name)
    model = planted(cfg, path)
    x = torch.randn(2, 1, side, side)
    with torch.no_grad():
        every = model.backbone.timm_model.forward_features(x)
        cls, patches = every[:, :1], every[:, 5:]
        outliers = every[..., 0] > 5
        assert outliers[:, 1:5].all() and outliers.sum() == 8

        def given(part):
            found = Encoder(cfg, path, part).eval().extract_feat(x)
            return found.unflatten(1, (-1, 32)).squeeze(1)

        # features --tokens and --stage
        assert torch.equal(given(Part('all')), torch.cat([cls, patches], 1))
        assert torch.equal(given(Part('patch')), patches)
        assert torch.equal(given(Part('cls')), cls[:, 0])
        mean = patches.mean(1)
        assert torch.allclose(given(Part('mean_patch')), mean, atol=1e-5)
        # k-NN and probes pool as timm does, or as the config says
        for options, wanted in (
            ({}, cls[:, 0] if 'dinov2' in name else mean),
            (dict(global_pool='token'), cls[:, 0]),
            (dict(global_pool='avg', **_no_norm(name)), mean),
        ):
            pooled = planted(config(name, **options), path).extract_feat(x)
            assert torch.allclose(pooled, wanted, atol=1e-5), options
        # distillation
        raw = planted(config(name, out_type='raw'), path).backbone
        tokens = split_tokens(raw(x), x, raw.patch_size, 'teacher')
        assert torch.equal(tokens.cls, cls[:, 0])
        assert torch.equal(tokens.patches, patches)
        # zero-shot segmentation, similarity, video
        dense = ModelFeatures(model, side)
        image = np.zeros((side, side, 3), np.uint8)
        (maps,) = dense([image])
        assert dense.patch_size == raw.patch_size
        assert maps.shape[2:] == (side // raw.patch_size,) * 2
        assert maps[:, 0].max() < 5


def _no_norm(name):
    """timm moves the norm behind the mean, if not told otherwise."""
    return dict(fc_norm=False) if 'dinov2' in name else {}


def test_the_tokens_of_mmpretrains_wrapper_are_no_patches(tmp_path):
    """It hands on all of timm's, registers too."""
    name = 'vit_small_patch16_dinov3_qkvb'
    cfg = config(name, type='mmpretrain.TIMMBackbone')
    path = str(tmp_path / 'planted.pth')
    planted(cfg, path)
    encoder = Encoder(cfg, path, Part('patch'))
    with pytest.raises(ValueError, match=r'--tokens patch.*\(2, 21, 32\)'):
        encoder.extract_feat(torch.zeros(2, 1, 64, 64))


@pytest.mark.parametrize(
    ('name', 'options'),
    [('resnet10t', {}), ('swin_tiny_patch4_window7_224', dict(img_size=56))],
)
def test_networks_without_class_token_give_maps(name, options):
    optional('timm')
    if 'swin' in name:
        options['depths'] = (1, 1, 1, 1)
    x = torch.randn(2, 3, 56, 56)
    outputs = {}
    for out_type in ('featmap', 'avg_featmap'):
        torch.manual_seed(0)
        net = TimmBackbone(name, out_type=out_type, **options).eval()
        outputs[out_type] = net(x)[-1]
        assert net.patch_size == 1
    assert outputs['featmap'].shape == (2, net.embed_dims, 2, 2)
    mean = nn.functional.adaptive_avg_pool2d(outputs['featmap'], 1)
    assert torch.allclose(outputs['avg_featmap'], mean.flatten(1), atol=1e-6)
    with pytest.raises(ValueError, match="out_type='raw'.*can give None, f"):
        TimmBackbone(name, out_type='raw', **options)
