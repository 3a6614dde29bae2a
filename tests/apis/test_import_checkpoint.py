"""Foreign checkpoints as files: what arrives computes what it computed."""

import os

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

import mmmoco
from mmmoco.apis.exchange.jobs import import_checkpoint
from mmmoco.engine import checkpoint_io
from mmmoco.registry import MODELS

from ..conftest import call, one_line
from ..convert import layouts

pytestmark = pytest.mark.slow


def build(model):
    """A model of ours from the config in a report; no SyncBN on a CPU."""
    model = {**model}
    for part in ('neck', 'predictor'):
        if 'norm_cfg' in model.get(part, {}) and model[part]['norm_cfg']:
            model[part] = {**model[part], 'norm_cfg': dict(type='BN1d')}
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope('mmmoco'):
        return MODELS.build(model)


def imported(tmp_path, checkpoint, **options):
    """Import a checkpoint through files; return our model, loaded whole."""
    torch.save(checkpoint, tmp_path / 'theirs.pth.tar')
    out = tmp_path / 'ours.pth'
    report = import_checkpoint(
        str(tmp_path / 'theirs.pth.tar'), str(out), **options
    )
    model = build(report.model)
    state = checkpoint_io.state_dict_of(checkpoint_io.read(out))
    checkpoint_io.load_into(
        model, state, allow_missing=[f'{n}.*' for n in report.absent]
    )
    return model.eval(), report


def images(size=32, n=4):
    return torch.randn(n, 3, size, size, generator=torch.manual_seed(0))


def close(ours, theirs):
    return torch.allclose(ours, theirs, atol=1e-5)


# ------------------------------------------------------------ the same values


def logits(model, x_q, x_k, tau):
    """Of a look-up in the queue, as our model makes them."""
    q, k = model.encode_query(x_q), model.encode_key(x_k)
    negatives = q @ model.dictionary.keys
    return torch.cat([(q * k).sum(1, keepdim=True), negatives], 1) / tau


@torch.no_grad()
@pytest.mark.parametrize('version', [1, 2])
def test_official_moco_goes_on_where_it_was(tmp_path, version):
    checkpoint, q_net, k_net = layouts.moco(version)
    model, report = imported(tmp_path, checkpoint)
    assert report.model['type'] == f'MoCoV{version}' and not report.absent
    x_q, x_k = images(), images().flip(0)
    q, k = normalize(q_net.eval()(x_q)), normalize(k_net.train()(x_k))
    queue = checkpoint['state_dict']['module.queue']
    theirs = torch.cat([(q * k).sum(1, keepdim=True), q @ queue], 1) / 0.2
    assert close(logits(model, x_q, x_k, 0.2), theirs)
    assert model.dictionary.ptr.item() == 8


@torch.no_grad()
@pytest.mark.parametrize('kind', ['resnet', 'vit', 'conv stem'])
def test_official_mocov3_goes_on_where_it_was(tmp_path, kind):
    stem = kind == 'conv stem'
    name = 'vit' if stem else kind
    checkpoint, (q_net, predictor), k_net = layouts.mocov3(name, stem)
    model, report = imported(tmp_path, checkpoint)
    assert report.model['type'] == 'MoCoV3' and not report.absent
    x = images(64 if stem else 32)
    q = normalize(predictor.eval()(q_net.eval()(x)))
    k = normalize(k_net.train()(x))
    assert close(model.encode_query(x), q)
    assert close(model.encode_key(x), k)


@torch.no_grad()
@pytest.mark.parametrize('spaces', [1, 3])
def test_seco_goes_on_in_its_first_space(tmp_path, spaces):
    checkpoint = layouts.seco(spaces)
    model, report = imported(tmp_path, checkpoint)
    state = checkpoint['state_dict']
    assert not report.absent
    assert len(report.imported.left) == 8 * (spaces - 1)
    x = images()
    for ours, side in ((model.encode_query, 'q'), (model.encode_key, 'k')):
        net, head = layouts.children(layouts.resnet()), layouts.two_linear(512)
        net.load_state_dict(
            {
                name.removeprefix(f'encoder_{side}.'): value
                for name, value in state.items()
                if name.startswith(f'encoder_{side}.')
            }
        )
        head.load_state_dict(
            {
                name.removeprefix(f'heads_{side}.0.'): value
                for name, value in state.items()
                if name.startswith(f'heads_{side}.0.')
            }
        )
        net.train(side == 'k')  # the key encoder stays in train mode
        assert close(ours(x), normalize(head(net(x).flatten(1))))
    assert torch.equal(model.dictionary.keys, state['queue'][0])
    assert model.dictionary.ptr.item() == 8


@torch.no_grad()
def test_dinos_resnet_is_its_teacher(tmp_path):
    checkpoint = layouts.dino_resnet()
    torch.save(checkpoint, tmp_path / 'a.pth')
    out = tmp_path / 'b.pth'
    report = import_checkpoint(str(tmp_path / 'a.pth'), str(out))
    model = MODELS.build(report.model)
    weights = checkpoint_io.read(out)['state_dict']
    checkpoint_io.load_into(
        model, {k.removeprefix('backbone.'): v for k, v in weights.items()}
    )
    model.eval()  # returns None
    net = layouts.bare(layouts.resnet())
    teacher = checkpoint['teacher']
    net.load_state_dict(
        {
            name.removeprefix('module.backbone.'): value
            for name, value in teacher.items()
            if 'backbone.' in name
        }
    )
    features = model(images())[-1].mean((2, 3))
    assert close(features, net.eval()(images()))


IMAGENET = dict(
    mean=[0.485 * 255, 0.456 * 255, 0.406 * 255],
    std=[0.229 * 255, 0.224 * 255, 0.225 * 255],
    channel_order='rgb',
    value_range=255,
)


def bands(checkpoint):
    """The same for images of 13 bands, whose statistics are not ImageNet's."""
    for name, value in checkpoint['state_dict'].items():
        if name.endswith('.conv1.weight') and value.shape[1] == 3:
            checkpoint['state_dict'][name] = value.repeat(1, 5, 1, 1)[:, :13]
    return checkpoint


def with_config(text):
    net = layouts.resnet()
    state = {
        f'backbone.{k}': v
        for k, v in net.state_dict().items()
        if not k.startswith('fc.')
    }
    return {'state_dict': state, 'meta': {'cfg': text}}


@pytest.mark.parametrize(
    ('make', 'expected'),
    [
        (lambda: layouts.moco(2)[0], IMAGENET),
        (lambda: layouts.mocov3('vit')[0], IMAGENET),
        (layouts.seco, IMAGENET),
        (layouts.dino_resnet, IMAGENET),
        (lambda: bands(layouts.moco(2)[0]), None),
        (lambda: layouts.vit().state_dict(), None),  # timm has two of them
        (layouts.solo_learn, None),  # one for each data set
        (lambda: with_config('model = dict(backbone=dict())'), None),
        (
            lambda: with_config(
                'model = dict(data_preprocessor=dict('
                'type="DetDataPreprocessor", mean=[1.0, 2, 3], '
                'std=[4, 5, 6], bgr_to_rgb=False))'
            ),
            dict(
                mean=[1, 2, 3],
                std=[4, 5, 6],
                channel_order='bgr',
                value_range=255,
            ),
        ),
        (
            lambda: with_config(
                'data_preprocessor = dict(mean=[1, 2, 3], std=[4, 5, 6], '
                'to_rgb=True)'
            ),
            dict(
                mean=[1, 2, 3],
                std=[4, 5, 6],
                channel_order='rgb',
                value_range=255,
            ),
        ),
        (
            lambda: with_config(
                'model = dict(data_preprocessor=dict('
                'type="mmmoco.ViewAugmentor", mean=(1, 2, 3), '
                'std=(4, 5, 6)))'
            ),
            dict(
                mean=[1, 2, 3],
                std=[4, 5, 6],
                channel_order='rgb',
                value_range=255,
            ),
        ),
    ],
)
def test_the_file_says_how_its_images_were_normalised(
    tmp_path, capsys, make, expected
):
    torch.save(make(), tmp_path / 'a.pth')
    assert call(import_checkpoint, tmp_path / 'a.pth', tmp_path / 'b.pth') == 0
    said = capsys.readouterr().out
    found = checkpoint_io.read(tmp_path / 'b.pth')['meta'].get('preprocessing')
    if expected is None:
        assert found is None
        assert 'Preprocessing: not known from this file' in said
        return
    assert f'Preprocessing: mean {found["mean"]}' in said
    assert found.keys() == expected.keys()
    for name in ('mean', 'std'):
        assert found[name] == pytest.approx(expected[name])
    for name in ('channel_order', 'value_range'):
        assert found[name] == expected[name]


def of_mmpretrain(kind):
    """A real model of mmpretrain after some training, and its checkpoint."""
    from mmengine.registry import DefaultScope
    from mmpretrain.registry import MODELS as THEIRS

    head = dict(
        type='NonLinearNeck',
        in_channels=32,
        hid_channels=64,
        out_channels=32,
        with_last_bn=kind == 'vit',
        with_last_bn_affine=False,
        with_avg_pool=False,
        norm_cfg=dict(type='BN1d'),
    )
    vit = dict(
        embed_dims=192, num_layers=2, num_heads=3, feedforward_channels=768
    )
    backbone = {
        'moco': dict(type='ResNet', depth=18),
        'densecl': dict(type='ResNet', depth=18),
        'resnet': dict(type='ResNet', depth=18),
        'vit': dict(type='MoCoV3ViT', arch=vit, img_size=32, patch_size=8),
    }[kind]
    if kind in ('moco', 'densecl'):
        dense = kind == 'densecl'
        cfg = dict(
            type='DenseCL' if dense else 'MoCo',
            queue_len=32,
            feat_dim=16,
            backbone=backbone,
            neck=dict(
                type='DenseCLNeck' if dense else 'MoCoV2Neck',
                in_channels=512,
                hid_channels=64,
                out_channels=16,
            ),
            head=dict(
                type='ContrastiveHead',
                temperature=0.2,
                loss=dict(type='CrossEntropyLoss'),
            ),
        )
    else:
        neck = {
            **head,
            'in_channels': 512 if kind == 'resnet' else 192,
            'num_layers': 2 if kind == 'resnet' else 3,
            'with_avg_pool': kind == 'resnet',
            'with_last_bn': True,
        }
        cfg = dict(
            type='MoCoV3',
            backbone=backbone,
            neck=neck,
            head=dict(
                type='MoCoV3Head',
                predictor=head,
                loss=dict(type='CrossEntropyLoss'),
            ),
        )
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = THEIRS.build(cfg)
    model.init_weights()
    if kind in ('moco', 'densecl'):
        model.loss([images(), images().flip(0)], [])
    # As after some steps: the encoders differ.
    layouts.settle(getattr(model, 'encoder_k', model).cpu(), 5)
    layouts.settle(model.backbone, 6)
    if kind == 'vit':
        positions = model.backbone.pos_embed
        with torch.no_grad():
            positions.copy_(layouts.vit(fixed=True).pos_embed)
    return model


@torch.no_grad()
@pytest.mark.parametrize('kind', ['moco', 'densecl', 'resnet', 'vit'])
def test_mmpretrains_own_models_go_on_where_they_were(tmp_path, kind):
    theirs = of_mmpretrain(kind)
    checkpoint = {'state_dict': theirs.state_dict(), 'meta': {'epoch': 7}}
    model, report = imported(tmp_path, checkpoint)
    name = 'moco' if kind in ('moco', 'densecl') else 'mocov3'
    assert report.imported.format.name == f'mmpretrain-{name}'
    assert len(report.imported.left) == 1  # the counter of its average
    x = images()
    theirs.eval()
    q = theirs.neck(theirs.backbone(x))[0]
    if name == 'moco':
        key_encoder = theirs.encoder_k
        assert torch.equal(model.dictionary.keys, theirs.queue)
        assert torch.equal(model.dictionary.ptr, theirs.queue_ptr)
        if kind == 'densecl':
            assert torch.equal(model.dense_dictionary.keys, theirs.queue2)
            assert torch.equal(model.dense_dictionary.ptr, theirs.queue2_ptr)
            cells = theirs.encoder_k.train()(x)[1]
            assert close(model.encode_keys(x).cells, normalize(cells))
    else:
        key_encoder = theirs.momentum_encoder
        q = theirs.head.predictor([q])[0]
    k = key_encoder.train()(x)[0]
    assert close(model.encode_query(x), normalize(q))
    assert close(model.encode_key(x), normalize(k))


@torch.no_grad()
def test_a_backbone_alone(tmp_path):
    net = layouts.vit(num_classes=10)
    torch.save(net.state_dict(), tmp_path / 'a.pth')
    out = tmp_path / 'b.safetensors'
    report = import_checkpoint(str(tmp_path / 'a.pth'), str(out))
    read = checkpoint_io.read(out)
    assert set(report.imported.left) == {'head.weight', 'head.bias'}
    assert read['meta']['imported']['format'] == 'timm-vit'
    backbone = MODELS.build(report.model)
    backbone.eval()  # returns None
    state = {
        k.removeprefix('backbone.'): v for k, v in read['state_dict'].items()
    }
    checkpoint_io.load_into(backbone, state)
    features = net.eval().forward_features(images())[:, 0]
    assert close(backbone(images())[-1], features)


@torch.no_grad()
def test_layer_scale_of_dinov2(tmp_path):
    state = layouts.dinov2()
    net = layouts.vit(init_values=1e-5)
    torch.save(state, tmp_path / 'a.pth')
    out = tmp_path / 'b.pth'
    report = import_checkpoint(str(tmp_path / 'a.pth'), str(out))
    assert report.model['type'] == 'mmpretrain.VisionTransformer'
    backbone = MODELS.build(report.model)
    backbone.eval()  # returns None
    weights = checkpoint_io.read(out)['state_dict']
    checkpoint_io.load_into(
        backbone, {k.removeprefix('backbone.'): v for k, v in weights.items()}
    )
    features = net.eval().forward_features(images())[:, 0]
    assert close(backbone(images())[-1], features)


def test_positions_are_brought_to_another_size(tmp_path, capsys):
    torch.save(layouts.dino(), tmp_path / 'a.pth')
    out = tmp_path / 'b.pth'
    assert (
        call(import_checkpoint, tmp_path / 'a.pth', out, '--img-size', 48) == 0
    )
    said = capsys.readouterr().out
    assert 'interpolated to images of 48 pixels: backbone.pos_embed' in said
    assert "'img_size': 48" in said and '3 heads' in said
    weights = checkpoint_io.read(out)['state_dict']
    assert weights['backbone.pos_embed'].shape == (1, 37, 192)
    assert (
        call(import_checkpoint, tmp_path / 'a.pth', out, '--img-size', 50) == 2
    )
    assert '--img-size 50 is no multiple' in one_line(capsys)


def test_the_report(tmp_path, capsys):
    checkpoint = layouts.mmselfsup_0x()
    torch.save(checkpoint, tmp_path / 'a.pth')
    assert call(import_checkpoint, tmp_path / 'a.pth', tmp_path / 'b.pth') == 0
    said = capsys.readouterr().out
    for line in (
        'Recognised: MoCo, DenseCL or MoCoV3 of mmselfsup 0.x (mmselfsup-0.x)',
        'Carried over: 250 entries (backbone 120, neck 4, key_encoder 124, '
        'dictionary 2)',
        'Left behind: 124 entries',
        '  the same tensors once more: backbone.* (120), neck.* (4)',
        'The state of the optimizer is not carried over.',
    ):
        assert line in said.splitlines()

    torch.save(layouts.seed_pipeline(), tmp_path / 'a.pth')
    assert call(import_checkpoint, tmp_path / 'a.pth', tmp_path / 'b.pth') == 0
    said = capsys.readouterr().out
    assert 'Not in the file: key_encoder (starts as a copy' in said
    assert 'Not in the file: dictionary (starts with random keys)' in said
    assert 'predictor' not in said


def test_a_config_that_the_weights_must_fit(tmp_path, capsys):
    torch.save(layouts.moco(2)[0], tmp_path / 'a.pth')
    argv = [tmp_path / 'a.pth', tmp_path / 'b.pth', '--config']
    assert call(import_checkpoint, *argv, 'mocov2_r50_8xb32') == 2
    line = one_line(capsys)
    assert 'backbone.layer1.0.conv3.weight' in line
    assert '330 missing in the file' in line
    assert not (tmp_path / 'b.pth').exists()

    config = tmp_path / 'mine.py'
    config.write_text(
        "_base_ = 'mmmoco::mocov2_r50_8xb32.py'\n"
        'model = dict(backbone=dict(depth=18), dictionary=dict(size=32),\n'
        '             neck=dict(in_channels=512, hid_channels=512))\n'
    )
    assert call(import_checkpoint, *argv, config) == 0
    model = mmmoco.get_model(str(config), str(tmp_path / 'b.pth'))
    assert model.dictionary.ptr.item() == 8


# ---------------------------------------------------------- broken and hostile


def without_a_layer(state):
    for name in list(state):
        if 'encoder_q.layer3.1.conv2' in name:
            del state[name]


def of_wrong_shape(state):
    name = 'module.encoder_q.layer2.0.conv1.weight'
    state[name] = torch.zeros(128, 63, 3, 3)


def without_half_of_the_head(state):
    del state['module.encoder_q.fc.0.weight']


def wrong_queue(state):
    state['module.queue'] = torch.zeros(64, 32)


@pytest.mark.parametrize(
    ('damage', 'words'),
    [
        (
            without_a_layer,
            ['missing', 'backbone.layer3.1.conv2.weight'],
        ),
        (
            of_wrong_shape,
            ['layer2.0.conv1.weight', '(128, 63, 3, 3)', '(128, 64, 3, 3)'],
        ),
        (without_half_of_the_head, ['mlp.2.weight', '--config']),
        (wrong_queue, ['(64, 32)', 'C=128']),
    ],
)
def test_broken_checkpoints(tmp_path, capsys, damage, words):
    checkpoint, *_ = layouts.moco(2)
    damage(checkpoint['state_dict'])
    torch.save(checkpoint, tmp_path / 'a.pth.tar')
    out = tmp_path / 'b.pth'
    assert call(import_checkpoint, tmp_path / 'a.pth.tar', out) == 2
    line = one_line(capsys)
    assert all(word in line for word in words), line
    assert os.listdir(tmp_path) == ['a.pth.tar']


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize('suffix', ['.pth', '.pth.tar', '.pkl', '.ckpt'])
def test_a_pickle_bomb_does_not_go_off(tmp_path, capsys, suffix):
    import pickle

    marker, path = tmp_path / 'went-off', tmp_path / f'bomb{suffix}'
    checkpoint = {
        'state_dict': {'encoder_q.conv1.weight': torch.ones(1)},
        'bomb': Bomb(f'touch {marker}'),
    }
    if suffix == '.pkl':
        checkpoint['state_dict'] = {'stem.conv1.weight': np.ones(1)}
        path.write_bytes(pickle.dumps(checkpoint, protocol=2))
    else:
        torch.save(checkpoint, path)
    assert call(import_checkpoint, path, tmp_path / 'b.pth') == 2
    line = one_line(capsys)
    assert 'refused' in line and 'system' in line and 'was run' in line
    assert not marker.exists() and not (tmp_path / 'b.pth').exists()
    # It was live.
    if suffix == '.pkl':
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize(
    ('argv', 'words'),
    [
        (['none.pth', 'b.pth'], ['none.pth']),
        (['a.pth', 'b.txt'], ['b.txt', '.safetensors']),
        (['a.pth', 'b.pth', '--from', 'moco9'], ['moco9', 'mmselfsup-0.x']),
        (
            ['a.pth', 'b.pth', '--img-size', '96'],
            ['--img-size 96', 'position embeddings'],
        ),
        (['half.pth', 'b.pth'], ['half.pth']),
        (['other.pth', 'b.pth'], ['fit no layout', 'net.weight (1)']),
        (['nothing.pth', 'b.pth'], ['No weights found']),
    ],
)
def test_bad_input(tmp_path, capsys, monkeypatch, argv, words):
    monkeypatch.chdir(tmp_path)
    if argv[0] in ('a.pth', 'half.pth'):
        torch.save(layouts.resnet().state_dict(), 'a.pth')
        content = (tmp_path / 'a.pth').read_bytes()
        (tmp_path / 'half.pth').write_bytes(content[: len(content) // 2])
    torch.save({'net.weight': torch.ones(1)}, 'other.pth')
    torch.save({'epoch': 3, 'lr': [0.1]}, 'nothing.pth')
    assert call(import_checkpoint, *argv) == 2
    line = one_line(capsys)
    assert all(word in line for word in words), line
    assert not (tmp_path / 'b.pth').exists()
