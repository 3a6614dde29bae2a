"""Exported files in the libraries that they are for."""

import hashlib
import os
import re
from typing import get_args

import pytest
import torch
import torchvision
from mmengine.config import Config
from mmengine.registry import DefaultScope
from sklearn.datasets import load_sample_image

import mmmoco
from mmmoco.apis import load_config
from mmmoco.apis.config.from_checkpoint import config_of
from mmmoco.apis.exchange import jobs
from mmmoco.apis.exchange.jobs import export_backbone, import_checkpoint
from mmmoco.convert.exporting import TARGETS
from mmmoco.convert.formats import FORMATS
from mmmoco.engine import checkpoint_io
from mmmoco.registry import MODELS

from ..conftest import call, one_line, optional
from ..convert import layouts
from .test_import_checkpoint import Bomb

pytestmark = pytest.mark.slow

SMALL_VIT = dict(
    embed_dims=192, num_layers=2, num_heads=3, feedforward_channels=768
)


def ours(kind, size):
    """One of our backbones, with values of its own."""
    config = {
        'resnet18': dict(type='mmpretrain.ResNet', depth=18),
        'resnet50': dict(type='MoCoV3ResNet', depth=50),
        'vit': dict(
            type='MoCoV3ViT', arch=SMALL_VIT, img_size=size, patch_size=8
        ),
        'vit-small': dict(type='MoCoV3ViT', arch='small', img_size=size),
    }[kind]
    with DefaultScope.overwrite_default_scope('mmmoco'):
        net = MODELS.build(config)
    positions = net.pos_embed.clone() if 'vit' in kind else None
    layouts.settle(net, 7)
    if positions is not None:
        with torch.no_grad():
            net.pos_embed.copy_(positions)
    net.eval()  # returns None for a ViT of mmpretrain
    return net


def photograph(size):
    """The centre of a real photograph, normalised: 1×3×size×size."""
    image = torch.from_numpy(load_sample_image('china.jpg').copy())
    x = image.permute(2, 0, 1)[None].float()
    x = torch.nn.functional.interpolate(x, (size, size), mode='bilinear')
    mean = torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1)
    std = torch.tensor([58.395, 57.12, 57.375]).view(1, 3, 1, 1)
    return (x - mean) / std


def save(net, path, **more):
    state = {f'backbone.{k}': v for k, v in net.state_dict().items()}
    state |= {f'key_encoder.backbone.{k}': v for k, v in more.items()}
    torch.save({'state_dict': state, 'meta': {'epoch': 5}}, path)


def exported(tmp_path, net, target, **options):
    save(net, tmp_path / 'ours.pth')
    out = str(tmp_path / 'net')
    return export_backbone(
        str(tmp_path / 'ours.pth'), out, to=target, **options
    ).path


def agree(theirs, net, x):
    feature = net(x)[-1]
    assert feature.abs().max() > 0.1  # nothing is compared with zeros
    worst = float((theirs - feature).abs().max())
    assert worst < 1e-4, worst


CASES = [
    ('resnet18', 64),
    ('vit', 64),
    pytest.param('resnet50', 224, marks=pytest.mark.slow),
    pytest.param('vit-small', 224, marks=pytest.mark.slow),
]


@torch.no_grad()
@pytest.mark.parametrize(('kind', 'size'), CASES)
def test_torchvision(tmp_path, kind, size):
    net, x = ours(kind, size), photograph(size)
    path = exported(tmp_path, net, 'torchvision')
    state = torch.load(path, weights_only=True)['state_dict']
    if 'resnet' in kind:
        theirs = getattr(torchvision.models, kind)()
        theirs.fc = torch.nn.Identity()
        theirs.load_state_dict(state)
        agree(theirs.eval()(x), Pooled(net), x)
    else:
        arch = net.arch_settings
        theirs = torchvision.models.VisionTransformer(
            image_size=size,
            patch_size=net.img_size[0] // net.patch_resolution[0],
            num_layers=arch['num_layers'],
            num_heads=arch['num_heads'],
            hidden_dim=arch['embed_dims'],
            mlp_dim=arch['feedforward_channels'],
        )
        theirs.heads = torch.nn.Identity()
        theirs.load_state_dict(state)
        agree(theirs.eval()(x), net, x)


class Pooled:
    """The average of the last feature map, as the classifiers see it."""

    def __init__(self, net):
        self.net = net

    def __call__(self, x):
        return [self.net(x)[-1].mean((2, 3))]


@torch.no_grad()
@pytest.mark.parametrize(('kind', 'size'), CASES)
def test_timm(tmp_path, kind, size):
    net, x = ours(kind, size), photograph(size)
    timm = optional('timm')
    path = exported(tmp_path, net, 'timm')
    if 'resnet' in kind:
        theirs = timm.create_model(
            kind, num_classes=0, checkpoint_path=str(path)
        )
        agree(theirs.eval()(x), Pooled(net), x)
        return
    arch = net.arch_settings
    theirs = timm.create_model(
        'vit_small_patch16_224',
        num_classes=0,
        img_size=size,
        patch_size=net.img_size[0] // net.patch_resolution[0],
        embed_dim=arch['embed_dims'],
        depth=arch['num_layers'],
        num_heads=arch['num_heads'],
        checkpoint_path=str(path),
    )
    agree(theirs.eval()(x), net, x)


@torch.no_grad()
@pytest.mark.parametrize('target', ['timm', 'torchvision'])
@pytest.mark.parametrize('channels', [3, 13])
def test_the_printed_line_loads_any_number_of_bands(
    tmp_path, target, channels
):
    timm = optional('timm')
    config = dict(
        type='mmpretrain.ResNet',
        depth=18,
        in_channels=channels,
        out_indices=(3,),
        norm_cfg=dict(type='BN'),
    )
    cfg = Config(
        dict(
            default_scope='mmmoco',
            model=dict(type='BackboneOnly', backbone=config),
        )
    )
    model = mmmoco.get_model(cfg).eval()
    file = tmp_path / 'x.pth'
    meta = dict(cfg=cfg.pretty_text)
    torch.save(dict(state_dict=model.state_dict(), meta=meta), file)
    done = export_backbone(str(file), str(tmp_path / 'out'), to=target)
    names = dict(torch=torch, torchvision=torchvision, timm=timm)
    if target == 'timm':
        theirs = eval(done.loading, names)
    else:
        exec(done.loading, names)
        theirs = names['model']
        theirs.fc = torch.nn.Identity()
    x = torch.randn(2, channels, 64, 64)
    agree(theirs.eval()(x), Pooled(model.backbone), x)


@torch.no_grad()
@pytest.mark.parametrize(('kind', 'size'), CASES)
def test_mmpretrain(tmp_path, kind, size):
    """Through init_cfg, as a config of theirs would."""
    net, x = ours(kind, size), photograph(size)
    path = exported(tmp_path, net, 'mmpretrain')
    config = (
        dict(type='ResNet', depth=int(kind[6:]))
        if 'resnet' in kind
        else dict(
            type='VisionTransformer',
            arch=dict(net.arch_settings),
            img_size=size,
            patch_size=net.img_size[0] // net.patch_resolution[0],
        )
    )
    agree(built('mmpretrain', config, path)(x)[-1], net, x)


def built(scope, config, path, prefix='backbone.'):
    """Build a backbone in its own library and let that load the file."""
    from importlib import import_module

    registry = import_module(f'{scope}.registry').MODELS
    init = dict(type='Pretrained', checkpoint=str(path))
    if prefix:
        init['prefix'] = prefix
    with DefaultScope.overwrite_default_scope(scope):
        import_module(f'{scope}.models')
        net = registry.build(dict(config, init_cfg=init))
    with checkpoint_io.guarded:
        net.init_weights()
    net.eval()
    return net


@torch.no_grad()
@pytest.mark.downstream
@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
@pytest.mark.parametrize(('kind', 'size'), CASES[:1] + CASES[2:3])
def test_resnet_of_mmdet_and_mmseg(tmp_path, scope, kind, size):
    net, x = ours(kind, size), photograph(size)
    path = exported(tmp_path, net, scope)
    theirs = built(scope, dict(type='ResNet', depth=int(kind[6:])), path)
    if scope == 'mmseg':
        # Their default keeps the resolution of the last stages.
        config = dict(
            type='ResNet',
            depth=int(kind[6:]),
            strides=(1, 2, 2, 2),
            dilations=(1, 1, 1, 1),
        )
        theirs = built(scope, config, path)
    agree(theirs(x)[-1], net, x)


@torch.no_grad()
@pytest.mark.downstream
def test_vit_of_mmseg(tmp_path):
    net, x = ours('vit', 64), photograph(64)
    path = exported(tmp_path, net, 'mmseg')
    config = dict(
        type='VisionTransformer',
        img_size=64,
        patch_size=8,
        embed_dims=192,
        num_layers=2,
        num_heads=3,
        patch_bias=True,
        final_norm=True,
        norm_cfg=dict(type='LN', eps=1e-6),
        output_cls_token=True,
    )
    theirs = built('mmseg', config, path, prefix=None)
    agree(theirs(x)[-1][1], net, x)


def test_pickle_of_detectron2(tmp_path):
    import pickle

    import numpy as np

    net = ours('resnet18', 64)
    path = exported(tmp_path, net, 'detectron2')
    assert path.suffix == '.pkl'
    with path.open('rb') as file:
        content = pickle.load(file)
    assert content['__author__'] and content['matching_heuristics'] is True
    model = content['model']
    assert all(type(value) is np.ndarray for value in model.values())
    own = net.state_dict()
    assert len(model) == len(own)
    assert np.array_equal(
        model['res5.0.shortcut.norm.running_mean'],
        own['layer4.0.downsample.1.running_mean'].numpy(),
    )


@pytest.mark.parametrize('target', TARGETS)
def test_files_go_there_and_back_bit_by_bit(tmp_path, target):
    # ResNets have the same files in the targets that take the small ViT;
    # their names are tested in tests/convert.
    kind = 'resnet18' if target in ('detectron2', 'torchvision') else 'vit'
    net = ours(kind, 64)
    path = exported(tmp_path, net, target)
    back = tmp_path / 'back.pth'
    import_checkpoint(str(path), str(back))
    state = checkpoint_io.read(back)['state_dict']
    expected = {f'backbone.{k}': v for k, v in net.state_dict().items()}
    assert state.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(state[name], value), name
        assert state[name].dtype == value.dtype


def test_the_options_name_every_target_and_every_layout():
    """They are read without importing what the tables need."""
    assert list(get_args(jobs.Target)) == ['folder', *TARGETS]
    (told,) = re.findall(
        r'by the keys: ([^:]*)\.\n', import_checkpoint.__doc__
    )
    assert re.split(r',\s+', told) == list(FORMATS)


def test_name_hash_and_metadata(tmp_path):
    cfg = load_config('mocov2_r18_1xb512_cifar10')
    with DefaultScope.overwrite_default_scope('mmmoco'):
        model = MODELS.build(cfg.model)
    layouts.settle(model.key_encoder, 8)
    meta = {'epoch': 200, 'iter': 19400, 'cfg': cfg.pretty_text}
    path = tmp_path / 'epoch_200.pth'
    torch.save({'state_dict': model.state_dict(), 'meta': meta}, path)

    first = export_backbone(str(path), str(tmp_path), to='mmdet').path
    digest = hashlib.sha256(first.read_bytes()).hexdigest()[:8]
    assert first.name == f'epoch_200_mmdet-{digest}.pth'
    again = export_backbone(str(path), f'{tmp_path}/new/', to='mmdet').path
    assert again.name == first.name
    assert again.parent == tmp_path / 'new'
    read = checkpoint_io.read(first)
    from mmmoco.engine.results import config_hash

    assert {
        'method': 'MoCoV2',
        'epochs': 200,
        'iterations': 19400,
        'config_hash': config_hash(cfg),
        'source': 'epoch_200.pth',
        'encoder': 'query',
        'target': 'mmdet',
    }.items() <= read['meta'].items()
    assert read['meta']['backbone']['type'] == 'mmpretrain.ResNet_CIFAR'

    out = export_backbone(
        str(path), str(tmp_path / 'k'), to='safetensors', encoder='key'
    ).path
    key = checkpoint_io.read(out)
    assert key['meta']['encoder'] == 'key'
    for name, value in model.key_encoder.backbone.state_dict().items():
        assert torch.equal(key['state_dict'][f'backbone.{name}'], value)
        if name.endswith('conv1.weight'):
            other = read['state_dict'][f'backbone.{name}']
            assert not torch.equal(other, value)


@pytest.mark.parametrize('target', TARGETS)
def test_an_exported_file_tells_its_images(tmp_path, target):
    """Evaluated or imported again, it needs no config."""
    cfg = load_config('mocov2_r18_1xb512_cifar10')
    eyes = cfg.model.data_preprocessor
    with DefaultScope.overwrite_default_scope('mmmoco'):
        net = MODELS.build(cfg.model.backbone)
    state = {f'backbone.{k}': v for k, v in net.state_dict().items()}
    path = str(tmp_path / 'e.pth')
    torch.save({'state_dict': state, 'meta': {'cfg': cfg.pretty_text}}, path)
    out = str(export_backbone(path, str(tmp_path), to=target).path)
    if target in ('torchvision', 'timm', 'detectron2'):  # With their names.
        back = str(tmp_path / 'back.pth')
        import_checkpoint(out, back, config=cfg)
        out = back
    told = config_of(out)
    assert list(told.model.data_preprocessor.mean) == list(eyes.mean)
    assert list(told.model.data_preprocessor.std) == list(eyes.std)
    sizes = [s['size'] for s in told.eval_pipeline if 'size' in s]
    assert sizes[-1] == [32, 32]


def test_any_backbone_whose_config_is_in_the_checkpoint(
    tmp_path, small_config
):
    """The net of the demo, from a real run, into its class elsewhere."""
    from mmmoco.apis.training.runner import build_runner

    cfg = small_config()
    cfg.work_dir = str(tmp_path / 'run')
    runner = build_runner(cfg)
    runner.train()
    checkpoint = next((tmp_path / 'run').glob('*.pth'))
    path = export_backbone(
        str(checkpoint), str(tmp_path / 'a'), to='mmdet'
    ).path
    config = cfg.model.backbone.to_dict()
    # SplitBN keeps the names of BatchNorm.
    config.update(type='mmmoco.PlainConvNet', norm_cfg=dict(type='BN'))
    net = built('mmpretrain', config, path)
    for name, value in runner.model.backbone.state_dict().items():
        assert torch.equal(net.state_dict()[name], value), name


# ------------------------------------------------------------------ refusals


def damaged(tmp_path, change):
    state = {
        f'backbone.{k}': v
        for k, v in ours('resnet18', 64).state_dict().items()
    }
    change(state)
    torch.save({'state_dict': state}, tmp_path / 'a.pth')
    return tmp_path / 'a.pth'


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (
            lambda s: s.pop('backbone.layer4.1.bn2.running_var'),
            ['missing', 'layer4.1.bn2.running_var'],
        ),
        (
            lambda s: s.update({'backbone.bn1.weight': torch.ones(3)}),
            ['bn1.weight', '(3,)', '(64,)'],
        ),
        (
            lambda s: s.update({'backbone.layer9.x': torch.ones(3)}),
            ['layer9.x', 'unknown'],
        ),
        (lambda s: s.clear(), ['it is empty']),
    ],
)
def test_broken_checkpoints(tmp_path, capsys, change, words):
    path = damaged(tmp_path, change)
    assert call(export_backbone, path, tmp_path / 'out', '--to', 'timm') == 2
    line = one_line(capsys)
    assert all(word in line for word in words), line
    assert os.listdir(tmp_path) == ['a.pth']


def test_a_pickle_bomb_does_not_go_off(tmp_path, capsys):
    marker = tmp_path / 'went-off'
    torch.save({'state_dict': Bomb(f'touch {marker}')}, tmp_path / 'a.pth')
    assert (
        call(
            export_backbone,
            tmp_path / 'a.pth',
            tmp_path / 'b',
            '--to',
            'mmdet',
        )
        == 2
    )
    assert 'refused' in one_line(capsys)
    assert os.listdir(tmp_path) == ['a.pth']


@pytest.mark.parametrize(
    'backbone',
    [
        "dict(type='os.system', command={})",
        "dict(type='mmpretrain.ResNet', depth=18, "
        "norm_cfg=dict(type='os.system', command={}))",
        "dict(type='mmpretrain.ResNet', depth=18, "
        "x=[dict(type='subprocess.run', args={}, shell=True)])",
    ],
)
def test_the_config_text_of_a_checkpoint_builds_nothing_foreign(
    tmp_path, backbone
):
    """mmengine's registry imports and calls whatever a type names."""
    from mmmoco.registry import MODELS as REGISTRY

    marker = tmp_path / 'went-off'
    text = f'model = dict(backbone={backbone.format(repr(f"touch {marker}"))})'
    net = ours('resnet18', 64)
    state = {f'backbone.{k}': v for k, v in net.state_dict().items()}
    torch.save({'state_dict': state, 'meta': {'cfg': text}}, tmp_path / 'a')
    path = export_backbone(str(tmp_path / 'a'), str(tmp_path / 'b'), to='timm')
    assert path.tensors == 120 and not marker.exists()
    # It was live.
    REGISTRY.build(dict(type='os.system', command=f'touch {marker}'))
    assert marker.exists()


@pytest.mark.parametrize('text', ['model = dict(backbone=3)', "model = 'x'"])
def test_a_config_text_without_a_backbone_is_left_aside(tmp_path, text):
    net = ours('resnet18', 64)
    state = {f'backbone.{k}': v for k, v in net.state_dict().items()}
    torch.save({'state_dict': state, 'meta': {'cfg': text}}, tmp_path / 'a')
    out = export_backbone(str(tmp_path / 'a'), str(tmp_path / 'b'), to='timm')
    assert out.tensors == 120


def test_bad_input(tmp_path, capsys):
    save(ours('vit', 64), tmp_path / 'vit.pth')
    torch.save(layouts.moco()[0], tmp_path / 'moco.pth')
    for argv, words in (
        (['none.pth', 'x', '--to', 'timm'], ['none.pth']),
        (['vit.pth', 'x', '--to', 'detectron2'], ['no ViT', 'mmpretrain']),
        (['vit.pth', 'x.pkl', '--to', 'timm'], ['x.pkl', '.pth']),
        (
            ['vit.pth', 'x', '--to', 'timm', '--encoder', 'key'],
            ['key_encoder.backbone.*', 'query'],
        ),
        (
            ['moco.pth', 'x', '--to', 'timm'],
            ['encoder_q', 'mmmoco import'],
        ),
    ):
        path = tmp_path / argv[0]
        assert (
            call(export_backbone, path, tmp_path / argv[1], *argv[2:]) == 2
        ), argv
        line = one_line(capsys)
        assert all(word in line for word in words), line
    assert sorted(os.listdir(tmp_path)) == ['moco.pth', 'vit.pth']
