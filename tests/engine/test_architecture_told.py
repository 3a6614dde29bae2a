"""What no shape tells: each trait, in each family, caught where it differs."""

import json
import re
from copy import deepcopy

import pytest
import torch
from mmengine.config import Config

from mmmoco.convert.formats import FORMATS
from mmmoco.engine.architecture import (
    architecture_in,
    architecture_of,
    compare,
    hold,
)
from mmmoco.engine.checkpoint_io import CheckpointError
from mmmoco.engine.evaluation.preprocessing import compare_start
from mmmoco.engine.pretrained import initialize
from mmmoco.engine.without_memory import build_without_memory

RESNET = dict(depth=50, norm_cfg=dict(type='BN'))
VIT = dict(
    arch=dict(
        embed_dims=96,
        num_layers=2,
        num_heads=6,
        feedforward_channels=96,
    ),
    img_size=64,
    patch_size=16,
)
MMSEG_VIT = dict(
    img_size=(64, 64),
    embed_dims=96,
    num_layers=2,
    num_heads=6,
    patch_size=16,
    out_indices=(1,),
)
FAMILIES = {
    'mmpretrain.ResNet': RESNET,
    'mmdet.ResNet': RESNET,
    'mmseg.ResNet': RESNET,
    'mmpretrain.VisionTransformer': VIT,
    'mmmoco.MoCoV3ViT': VIT,
    'mmseg.VisionTransformer': MMSEG_VIT,
    'mmpretrain.ConvNeXt': dict(
        arch=dict(depths=[1, 1, 1, 1], channels=[8, 8, 8, 8]),
    ),
}
#: By trait: what is changed in a family, and the words of the message.
CHANGES = {
    'heads': (
        True,
        {
            'mmpretrain.VisionTransformer': {'arch.num_heads': 12},
            'mmmoco.MoCoV3ViT': {'arch.num_heads': 12},
            'mmseg.VisionTransformer': {'num_heads': 12},
        },
        'heads of attention',
    ),
    'patch stride': (
        True,
        {
            'mmpretrain.VisionTransformer': {'patch_cfg': dict(stride=8)},
        },
        r'of patch_embed\.projection: \[16, 1\] in FILE, \[8, 1\] in NET',
    ),
    'style': (
        True,
        {
            f'{lib}.ResNet': {'style': 'caffe'}
            for lib in ('mmpretrain', 'mmdet', 'mmseg')
        },
        r'stride and dilation of layer2\.0\.conv1 \(and 5 more\): 1 in',
    ),
    'dilation': (
        False,
        {
            f'{lib}.ResNet': {
                'strides': (1, 2, 1, 1),
                'dilations': (1, 1, 2, 4),
            }
            for lib in ('mmpretrain', 'mmdet', 'mmseg')
        },
        r'stride and dilation of layer3\.0\.conv2',
    ),
    'activation': (
        True,
        {
            'mmseg.VisionTransformer': {'act_cfg': dict(type='ReLU')},
            'mmpretrain.VisionTransformer': {
                'layer_cfgs': dict(act_cfg=dict(type='ReLU'))
            },
            'mmpretrain.ConvNeXt': {'act_cfg': dict(type='ReLU')},
        },
        'activation: .*GELU.* in FILE, .*ReLU',
    ),
    'epsilon': (
        False,
        {
            'mmpretrain.VisionTransformer': {
                'norm_cfg': dict(type='LN', eps=1e-5)
            },
            'mmpretrain.ResNet': {'norm_cfg': dict(type='BN', eps=1e-3)},
        },
        'epsilon of the norms: 1e-0[56] in FILE',
    ),
    'positions': (
        False,
        {
            'mmpretrain.VisionTransformer': {'interpolate_mode': 'nearest'},
            'mmseg.VisionTransformer': {'interpolate_mode': 'nearest'},
        },
        "interpolation of the positions: 'bicubic' in FILE, 'nearest'",
    ),
}
GRID = [
    pytest.param(kind, change, fault, words, id=f'{trait}-{kind}')
    for trait, (fault, families, words) in CHANGES.items()
    for kind, change in families.items()
]


def build(kind, change=()):
    library = kind.partition('.')[0]
    pytest.importorskip(library)
    model = Config(dict(type=kind, **deepcopy(FAMILIES[kind])))
    for key, value in dict(change).items():
        model.merge_from_dict({key: value})
    scope = 'mmpretrain' if library == 'mmmoco' else library
    return build_without_memory(Config(dict(model=model, default_scope=scope)))


@pytest.mark.parametrize('kind, change, fault, words', GRID)
def test_a_difference_is_named(kind, change, fault, words):
    own = build(kind)
    told = json.loads(json.dumps(architecture_of(own)))
    assert compare(told, own, ('FILE', 'NET')) == ([], [], [])
    other = build(kind, change)
    shapes = [
        {
            name: value.shape
            for name, value in net.state_dict().items()
            if name != 'pos_embed'  # Resized when it is loaded.
        }
        for net in (own, other)
    ]
    assert shapes[0] == shapes[1]
    found = compare(told, other, ('FILE', 'NET'))
    lines = found.faults if fault else found.remarks
    assert len(lines) == 1 and not found.unknown
    assert (found.remarks if fault else found.faults) == []
    assert re.search(words, lines[0]), lines


def test_a_file_that_does_not_tell_loads(tmp_path, capsys):
    path = str(tmp_path / 'old.pth')
    net = build('mmpretrain.VisionTransformer')
    torch.save({'state_dict': {'backbone.layers.0.a': torch.ones(1)}}, path)
    hold(path, net, 'model.backbone')
    said = ''.join(capsys.readouterr())
    assert f'{path} does not tell its heads of attention, tokens' in said
    assert 'strides: not compared with model.backbone' in said


@pytest.mark.parametrize(
    'told', [7, [], 'x', '{', {'heads': 6, 'steps': 'x'}, {'steps': {1: 2}}]
)
def test_a_record_may_hold_anything(told, tmp_path):
    path = str(tmp_path / 'odd.pth')
    weights = {'backbone.layers.0.a': torch.ones(1)}
    torch.save({'state_dict': weights, 'meta': {'architecture': told}}, path)
    net = build('mmmoco.MoCoV3ViT')
    if isinstance(told, dict) and told['steps'] != 'x':
        with pytest.raises(CheckpointError, match='stride and dilation'):
            hold(path, net, 'model.backbone')
        hold(path, net, 'model.backbone', partial=True)
    else:
        hold(path, net, 'model.backbone')


def vit_of_timm(width=384, fixed=False):
    """As DeiT, timm and DINO name a ViT-S; with fixed positions, MoCo v3."""
    from mmmoco.convert.exporting import rename_backbone
    from mmmoco.registry import MODELS, in_scope_of

    with in_scope_of({}):
        net = MODELS.build(
            dict(
                type='MoCoV3ViT' if fixed else 'mmpretrain.VisionTransformer',
                arch=dict(
                    embed_dims=width,
                    num_layers=1,
                    num_heads=6,
                    feedforward_channels=4,
                ),
                img_size=32,
                patch_size=16,
            )
        )
    weights = net.state_dict()
    weights['pos_embed'] += 0 if fixed else 1
    return rename_backbone(weights, 'timm')


@pytest.mark.parametrize(
    'layout, heads',
    [('timm', 6), ('mocov3', 12), ('dino', 6)],
)
def test_heads_of_a_published_vit_s_are_known(layout, heads, tmp_path):
    weights = vit_of_timm(fixed=layout == 'mocov3')
    below = {
        'timm': '',
        'mocov3': 'module.base_encoder.',
        'dino': 'teacher.backbone.',
    }[layout]
    path = str(tmp_path / 'file.pth')
    content = {f'{below}{name}': value for name, value in weights.items()}
    torch.save({'state_dict': content}, path)
    told = architecture_in(path)
    assert told['heads'] == [heads] and told['norm_eps'] == [1e-6]
    assert FORMATS['timm-vit'].published


def test_a_backbone_of_other_heads_is_refused_at_its_start(tmp_path):
    from mmmoco.registry import MODELS, in_scope_of

    arch = dict(FAMILIES['mmmoco.MoCoV3ViT']['arch'])
    path = str(tmp_path / 'vit.pth')
    settings = dict(type='MoCoV3ViT', img_size=64, patch_size=16)
    init = dict(type='Pretrained', checkpoint=path, prefix='backbone.')
    with in_scope_of({}):
        net = MODELS.build(dict(arch=arch, **settings))
        state = {f'backbone.{k}': v for k, v in net.state_dict().items()}
        meta = {'architecture': architecture_of(net)}
        torch.save({'state_dict': state, 'meta': meta}, path)
        initialize(MODELS.build(dict(arch=arch, init_cfg=init, **settings)))
        other = dict(arch, num_heads=12)
        with pytest.raises(CheckpointError) as error:
            initialize(
                MODELS.build(dict(arch=other, init_cfg=init, **settings))
            )
    line = str(error.value)
    assert f'heads of attention: 6 in {path}, 12 in model' in line
    assert '\n' not in line


def test_other_mean_and_std_are_named(tmp_path):
    """Only named: training makes up for them, unless all is frozen."""
    path = str(tmp_path / 'a.pth')
    meta = {
        'preprocessing': dict(
            mean=[127.5] * 3, std=[127.5] * 3, channel_order='bgr'
        )
    }
    torch.save({'meta': meta, 'state_dict': {'a': torch.ones(1)}}, path)
    lines = compare_start(
        dict(
            model=dict(
                backbone=dict(
                    init_cfg=dict(type='Pretrained', checkpoint=path)
                ),
                data_preprocessor=dict(
                    mean=[123.675, 116.28, 103.53],
                    std=[58.395, 57.12, 57.375],
                    bgr_to_rgb=True,
                ),
            ),
            train_dataloader=dict(
                dataset=dict(pipeline=[dict(type='LoadImageFromFile')])
            ),
        )
    )
    assert [line.partition(':')[0] for line in lines] == [
        'mean', 'std', 'channel_order',
    ]  # fmt: skip
