"""The config that a checkpoint tells: names of closed lists, and numbers."""

import sys

import pytest
import torch
from mmengine.config import Config

import mmmoco
from mmmoco.apis.config.from_checkpoint import config_of
from mmmoco.engine.checkpoint_io import CheckpointError
from mmmoco.registry import MODELS

PLACE = '/no/such/place'


@pytest.fixture
def write(tmp_path, small_config):
    """Return a function that saves a model with what its config is told."""
    cfg = small_config()
    weights = mmmoco.get_model(cfg).state_dict()

    def save(change=None, meta=None, drop=(), text=None):
        told = Config(cfg.to_dict())
        if change:
            told.merge_from_dict(change)
        for name in drop:
            del told[name]
        path = tmp_path / 'epoch_1.pth'
        text = told.pretty_text if text is None else text
        meta = {'cfg': text} if meta is None else meta
        torch.save({'state_dict': weights, 'meta': meta}, path)
        return str(path)

    return save


def words_of(node):
    """Yield every key and value of a config, as text."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield str(key)
            yield from words_of(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from words_of(value)
    else:
        yield str(node)


def test_what_is_told_gives_the_same_features(write, small_config):
    path = write()
    cfg = config_of(path)
    assert cfg.model.type == 'mmmoco.MoCoV2'
    theirs = mmmoco.get_model(cfg, path)
    ours = mmmoco.get_model(small_config(), path)
    x = torch.rand(2, 1, 48, 48)
    for stage in ('backbone', 'neck'):
        with torch.no_grad():
            assert torch.equal(
                ours.extract_feat(x, stage), theirs.extract_feat(x, stage)
            )


LURES = {
    'init_cfg of the model': {
        'model.init_cfg': dict(type='Pretrained', checkpoint=PLACE)
    },
    'init_cfg of a part': {
        'model.backbone.init_cfg': [
            dict(type='Pretrained', checkpoint=f'http://localhost{PLACE}')
        ]
    },
    'pretrained': {'model.neck.pretrained': PLACE},
    'data set': {
        'train_dataloader.dataset.data_root': PLACE,
        'knn.query.dataset.type': 'torch.load',
        'knn.query.dataset.data_root': PLACE,
    },
    'transforms': {
        'knn.query.dataset.pipeline': [
            dict(type='os.system', command=f'touch {PLACE}')
        ],
        'train_dataloader.dataset.pipeline': [
            dict(type='mmmoco.LoadBands', extensions=[PLACE])
        ],
    },
    'hooks': {'custom_hooks': [dict(type='os.system', command=PLACE)]},
    'custom_imports': {'custom_imports': dict(imports=['lure_module'])},
    'runtime': {
        'work_dir': PLACE,
        'load_from': PLACE,
        'resume': True,
        'env_cfg': dict(backend=PLACE),
        'visualizer': dict(type='os.system'),
        'default_scope': 'lure_module',
    },
    'preprocessor': {
        'model.data_preprocessor.views': dict(
            q=dict(source=PLACE, ops=[dict(type='os.system')])
        )
    },
    'base': {'_base_': [PLACE]},
}


@pytest.mark.parametrize('lure', LURES)
def test_nothing_but_parts_and_numbers_is_taken(
    write, lure, tmp_path, monkeypatch
):
    (tmp_path / 'lure_module.py').write_text('raise SystemExit(99)')
    monkeypatch.syspath_prepend(tmp_path)
    path = write(LURES[lure])
    cfg = config_of(path)
    words = [*words_of(cfg.to_dict())]
    for never in (PLACE, 'os.system', 'Pretrained', 'lure_module', 'hooks'):
        assert not any(never in word for word in words), never
    assert set(cfg) <= {
        'model',
        'default_scope',
        'eval_pipeline',
        'input_range',
    }
    assert {part['type'].split('.')[0] for part in cfg.eval_pipeline} <= {
        'mmmoco',
        'mmpretrain',
    }
    mmmoco.get_model(cfg, path)
    assert 'lure_module' not in sys.modules


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ({'model.backbone.type': 'os.system'}, "'os.system'"),
        ({'model.backbone.type': 'torch.hub.load'}, "'torch.hub.load'"),
        ({'model.backbone.type': 'mmdet.ResNet'}, "'mmdet.ResNet'"),
        ({'model.backbone.type': 'Queue'}, "'Queue'"),
        ({'model.backbone.norm_cfg': dict(type='eval')}, "'eval'"),
        ({'model.backbone.arch': '../weights.pth'}, 'weights.pth'),
        ({'model.backbone.arch': 'http://localhost/x'}, 'http://localhost/x'),
        ({'model.backbone.num_layers': 10**7}, 'num_layers=10000000'),
        ({'model.backbone.in_channels': 1e300}, 'in_channels=1e+300'),
        (
            {
                'model.backbone': dict(
                    _delete_=True,
                    type='mmpretrain.TIMMBackbone',
                    model_name='resnet18',
                    checkpoint_path='weights',
                    cache_dir='x',
                )
            },
            'model.backbone more than',
        ),
        (
            {
                'model.backbone': dict(
                    _delete_=True,
                    type='mmpretrain.TIMMBackbone',
                    model_name='hf-hub:user/model',
                )
            },
            'hf-hub:user/model',
        ),
        ({'model.data_preprocessor.mean': ('a',)}, 'normalised'),
        ({'model.data_preprocessor.std': (1.0, 1.0)}, 'std'),
        ({'model.data_preprocessor.std': (0.0,)}, 'std'),
        ({'input_range': 'x'}, "range='x'"),
        ({'model.backbone._scope_': 'evil'}, 'odd names'),
        ({'model.backbone.norm_cfg._scope_': 'evil'}, 'odd names'),
        ({'model.backbone.self': 1}, 'odd names'),
        (
            {
                'knn.query.dataset.pipeline': [
                    dict(type='CenterCrop', crop_size=8192)
                ]
            },
            '8192',
        ),
    ],
)
def test_a_backbone_beyond_the_lists_is_not_built(write, change, said):
    with pytest.raises(ValueError, match='--config') as caught:
        config_of(write(change))
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    'change',
    [
        {'model.type': 'os.system'},
        {'model.neck.type': 'os.system'},
        {'model.dictionary.type': 'os.system'},
        {'model.loss.type': 'mmdet.Loss'},
        {'model.dictionary.size': 1 << 30},  # More than the file holds.
        {'model.neck.hid_channels': 1 << 28},
        {'model.m': 'http://localhost'},
    ],
)
def test_another_part_leaves_the_backbone_alone(write, change):
    cfg = config_of(write(change))
    assert cfg.model.type == 'mmmoco.BackboneOnly'
    assert [*cfg.model] == ['type', 'backbone', 'data_preprocessor']


@pytest.mark.parametrize(
    'change',
    [
        {'in_channels': 1.0},
        {'channels': ()},
        {'channels': (-1, 8)},
        {'channels': (1 << 31, 1 << 31)},
        {'strides': 2},
        {'norm_cfg': 'x'},
        {'norm_cfg': {'type': 'BN', 'eps': -5.0}},
        {'nosuch': 1},
    ],
)
def test_a_backbone_that_cannot_be_built_so(write, change):
    change = {f'model.backbone.{k}': v for k, v in change.items()}
    with pytest.raises(CheckpointError, match=r'epoch_1\.pth') as caught:
        config_of(write(change))
    said = str(caught.value)
    assert 'cannot be built as told' in said or 'does not fit' in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ('eyes', 'mean'),
    [
        ({}, 20.0),
        (dict(value_range=1.0), 5100.0),
        (dict(value_range=510), 10.0),
        (dict(channel_order='RGB'), 20.0),
        (dict(value_range=0), None),
        (dict(value_range=-1), None),
        (dict(channel_order='BGR'), None),
        (dict(channel_order='xyz'), None),
    ],
)
def test_statistics_are_those_of_bytes(write, small_config, eyes, mean):
    told = small_config().model.backbone.to_dict()
    eyes = dict(mean=[20.0], std=[2.0], **eyes)
    path = write(meta=dict(preprocessing=eyes, backbone=told))
    if mean is None:
        with pytest.raises(ValueError, match='Give its config'):
            config_of(path)
    else:
        assert config_of(path).model.data_preprocessor.mean == (mean,)


def test_what_is_told_is_not_replaced_without_a_word(tmp_path, capfd):
    """Tensors do not tell strides."""
    backbone = dict(type='mmdet.ResNet', depth=18, strides=(1, 2, 2, 1))
    eyes = dict(type='X', mean=[1.0] * 3, std=[1.0] * 3)
    told = dict(model=dict(backbone=backbone, data_preprocessor=eyes))
    net = MODELS.build(dict(type='mmpretrain.ResNet', depth=18))
    state = {f'backbone.{k}': v for k, v in net.state_dict().items()}
    meta = {'cfg': f'model = {told["model"]!r}'}
    path = str(tmp_path / 'a.pth')
    torch.save({'state_dict': state, 'meta': meta}, path)
    config_of(path)
    said = ''.join(capfd.readouterr())
    assert "type='mmdet.ResNet'" in said and 'strides' in said


def test_a_backbone_larger_than_the_file_takes_no_memory(write):
    with pytest.raises(CheckpointError, match='shape'):
        config_of(write({'model.backbone.channels': (1 << 20, 1 << 20)}))


@pytest.mark.parametrize(
    'text',
    [
        'model = 3',
        'model = dict(backbone=3)',
        'model = [1]\ntrain_dataloader = 7',
        'train_dataloader = "x"\nknn = 3\nmodel = dict(type=3, backbone=[])',
        'import os',
        'model = __import__("os").system("true")',
        '',
    ],
)
def test_odd_configs_are_refused_in_one_line(write, text):
    with pytest.raises(ValueError, match=r'epoch_1\.pth: .*--config'):
        config_of(write(text=text))


def test_a_file_that_tells_nothing(write, tmp_path):
    with pytest.raises(ValueError, match=r'normalised\. Give its config'):
        config_of(write(meta={}))
    with pytest.raises(FileNotFoundError, match='no.pth'):
        config_of(str(tmp_path / 'no.pth'))
    torch.save({'state_dict': {'a.b': torch.ones(1)}}, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=r'only a: if it is of another'):
        config_of(str(tmp_path / 'a.pth'))


@pytest.mark.slow
@pytest.mark.parametrize(
    'backbone',
    [
        dict(type='mmpretrain.ConvNeXt', arch='atto'),
        dict(type='mmpretrain.SwinTransformer', arch='tiny', img_size=224),
        dict(type='mmpretrain.MobileNetV2', widen_factor=0.5),
        dict(type='mmpretrain.MobileNetV3', arch='small'),
        dict(type='mmpretrain.EfficientNet', arch='b0'),
        dict(type='mmpretrain.HRNet', arch='w18'),
        dict(type='mmpretrain.RegNet', arch='regnetx_400mf'),
        dict(type='mmpretrain.ShuffleNetV2', widen_factor=0.5),
        dict(type='mmpretrain.SEResNet', depth=50, base_channels=8),
        dict(type='mmpretrain.TIMMBackbone', model_name='resnet10t'),
        dict(
            type='mmpretrain.TIMMBackbone',
            model_name='resnet10t',
            in_channels=2,
            features_only=True,
            out_indices=[4],
        ),
    ],
    ids=lambda backbone: backbone['type'].split('.')[1],
)
def test_networks_of_the_lists(backbone, tmp_path):
    """What a run may be of is found again, with the same features."""
    channels = backbone.get('in_channels', 3)
    norm = dict(mean=[127.5] * channels, std=[64.0] * channels)
    told = Config(
        dict(
            model=dict(
                type='mmmoco.BackboneOnly',
                backbone=backbone,
                data_preprocessor=dict(type='mmmoco.ViewAugmentor', **norm),
            ),
            default_scope='mmmoco',
        )
    )
    model = mmmoco.get_model(told)
    path = tmp_path / 'epoch_1.pth'
    meta = {'cfg': told.pretty_text}
    torch.save({'state_dict': model.state_dict(), 'meta': meta}, path)
    found = mmmoco.get_model(config_of(str(path)), str(path))
    x = torch.rand(1, channels, 224, 224)
    with torch.no_grad():
        assert torch.equal(model.extract_feat(x), found.extract_feat(x))
