"""Configs of mmpretrain, converted and compared value by value."""

from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from torch import nn

from mmmoco.apis import cli
from mmmoco.apis.config.files import load_config
from mmmoco.apis.exchange.jobs import convert_config
from mmmoco.convert.openmmlab_config import convert_config as convert
from mmmoco.engine.without_memory import build_without_memory

SHIPPED = [
    'mocov2/mocov2_resnet50_8xb32-coslr-200e_in1k',
    'mocov3/mocov3_resnet50_8xb512-amp-coslr-100e_in1k',
    'mocov3/mocov3_resnet50_8xb512-amp-coslr-300e_in1k',
    'mocov3/mocov3_resnet50_8xb512-amp-coslr-800e_in1k',
    'mocov3/mocov3_vit-small-p16_16xb256-amp-coslr-300e_in1k',
    'mocov3/mocov3_vit-base-p16_16xb256-amp-coslr-300e_in1k',
    'mocov3/mocov3_vit-large-p16_64xb64-amp-coslr-300e_in1k',
    'densecl/densecl_resnet50_8xb32-coslr-200e_in1k',
]


def hyper_parameters_of_theirs(cfg):
    head = cfg.model.head
    view = cfg.train_dataloader.dataset.pipeline[1].transforms[-1]
    first = cfg.train_dataloader.dataset.pipeline[1].transforms[0]
    return dict(
        lr=cfg.optim_wrapper.optimizer.lr,
        wd=cfg.optim_wrapper.optimizer.weight_decay,
        optimizer=cfg.optim_wrapper.optimizer.type,
        clip=cfg.optim_wrapper.get('clip_grad'),
        amp=cfg.optim_wrapper.type == 'AmpOptimWrapper',
        epochs=cfg.train_cfg.max_epochs,
        schedule=[dict(s) for s in cfg.param_scheduler],
        batch=cfg.train_dataloader.batch_size,
        lr_for=cfg.auto_scale_lr.base_batch_size,
        temperature=head.temperature,
        factor=head.loss.get('loss_weight', 1.0),
        K=cfg.model.get('queue_len'),
        dim=cfg.model.neck.out_channels,
        m=1 - cfg.model.get('momentum', cfg.model.get('base_momentum')),
        width=cfg.model.neck.in_channels,
        crop=tuple(view[0].crop_ratio_range),
        size=view[0].scale,
        blur=[v.prob for v in (first[3], view[3])],
        saturation=view[1].transforms[0].saturation,
        hue=view[1].transforms[0].hue,
        mean=list(cfg.data_preprocessor.mean),
        seed=cfg.get('randomness', {}).get('seed'),
    )


def hyper_parameters_of_ours(cfg):
    loss, model = cfg.model.loss, cfg.model
    views = list(cfg.train_dataloader.dataset.pipeline[1].views.values())
    view = views[1]
    return dict(
        lr=cfg.optim_wrapper.optimizer.lr,
        wd=cfg.optim_wrapper.optimizer.weight_decay,
        optimizer=cfg.optim_wrapper.optimizer.type,
        clip=cfg.optim_wrapper.get('clip_grad'),
        amp=cfg.optim_wrapper.get('dtype') == 'float16',
        epochs=cfg.train_cfg.max_epochs,
        schedule=[dict(s) for s in cfg.param_scheduler],
        batch=cfg.train_dataloader.batch_size,
        lr_for=cfg.auto_scale_lr.base_batch_size,
        temperature=loss.temperature,
        factor=2 * loss.temperature if loss.get('scale_by_2tau') else 1.0,
        K=model.dictionary.get('size'),
        dim=model.neck.out_channels,
        m=pytest.approx(model.m),
        width=next(
            layer.in_features
            for layer in build_without_memory(cfg).neck.modules()
            if isinstance(layer, nn.Linear)
        ),
        crop=tuple(view[0].scale),
        size=view[0].size,
        blur=[v[3].prob for v in views],
        saturation=view[1].saturation,
        hue=view[1].hue,
        mean=list(model.data_preprocessor.mean),
        seed=cfg.get('randomness', {}).get('seed'),
    )


@pytest.mark.parametrize('name', SHIPPED)
def test_equal_values_and_it_builds(tmp_path, name):
    out = tmp_path / 'ours.py'
    converted = convert_config(f'mmpretrain::{name}.py', str(out))
    assert converted.unknown == {}
    theirs = load_config(f'mmpretrain::{name}.py')
    cfg = load_config(str(out))
    assert hyper_parameters_of_ours(cfg) == hyper_parameters_of_theirs(theirs)
    model = build_without_memory(cfg)
    kinds = dict(mocov2='MoCo', mocov3='MoCoV3', densecl='DenseCL')
    assert type(model).__name__ == kinds[name.partition('/')[0]]
    assert {h['type'] for h in cfg.custom_hooks} >= {
        'KeyEncoderUpdateHook',
        'DictionaryUpdateHook',
    }
    if 'vit-small' in name:
        assert model.backbone.arch_settings['num_heads'] == 12


@pytest.mark.parametrize(
    ('theirs', 'same'),
    [
        (SHIPPED[0], 'mocov2_r50_8xb32'),
        (SHIPPED[4], 'mocov3_vit-s_32xb128_300e'),
        (SHIPPED[-1], 'densecl_r50_8xb32_200e'),
    ],
)
def test_the_model_is_that_of_our_own_recipe(tmp_path, theirs, same):
    out = tmp_path / 'ours.py'
    convert_config(f'mmpretrain::{theirs}.py', str(out))
    models = [build_without_memory(load_config(n)) for n in (str(out), same)]
    first, second = (
        {k: tuple(v.shape) for k, v in m.state_dict().items()} for m in models
    )
    assert first == second


def test_the_views_build_and_run(tmp_path):
    from mmengine.registry import DefaultScope

    from mmmoco.datasets.transforms import views  # noqa: F401
    from mmmoco.registry import TRANSFORMS

    out = tmp_path / 'ours.py'
    convert_config(f'mmpretrain::{SHIPPED[1]}.py', str(out))
    pipeline = load_config(str(out)).train_dataloader.dataset.pipeline
    with DefaultScope.overwrite_default_scope('mmmoco'):
        made = TRANSFORMS.build(pipeline[1])
    image = np.full((250, 300, 3), (90, 140, 20), np.uint8)
    packed = made.transform({'img': image, 'sample_idx': 3})
    assert {k: tuple(v.shape) for k, v in packed['inputs'].items()} == {
        'view_1': (3, 224, 224),
        'view_2': (3, 224, 224),
    }


MMSELFSUP = dict(
    default_scope='mmselfsup',
    model=dict(
        type='MoCo',
        queue_len=4096,
        feat_dim=64,
        momentum=0.99,
        backbone=dict(
            type='ResNet',
            depth=18,
            in_channels=3,
            out_indices=[4],
            norm_cfg=dict(type='BN'),
        ),
        neck=dict(
            type='LinearNeck',
            in_channels=512,
            out_channels=64,
            with_avg_pool=True,
        ),
        head=dict(
            type='ContrastiveHead',
            loss=dict(type='mmcls.CrossEntropyLoss'),
            temperature=0.07,
        ),
    ),
    data_preprocessor=dict(
        mean=(1.0, 2.0, 3.0), std=(4.0, 5.0, 6.0), bgr_to_rgb=True
    ),
    train_dataloader=dict(
        batch_size=16,
        drop_last=False,
        sampler=dict(type='DefaultSampler', shuffle=True),
        dataset=dict(
            type='mmcls.ImageNet',
            data_root='photos/',
            ann_file='meta/train.txt',
            data_prefix=dict(img_path='train/'),
            pipeline=[
                dict(
                    type='LoadImageFromFile',
                    file_client_args=dict(backend='disk'),
                ),
                dict(
                    type='MultiView',
                    num_views=2,
                    transforms=[
                        [
                            dict(
                                type='RandomResizedCrop',
                                size=96,
                                scale=(0.3, 1.0),
                            ),
                            dict(type='RandomGrayscale', prob=0.25),
                            dict(
                                type='RandomGaussianBlur',
                                sigma_min=0.2,
                                sigma_max=1.5,
                                prob=0.5,
                            ),
                            dict(type='RandomSolarize', prob=0.0),
                            dict(type='RandomErase', area=0.5),
                            dict(
                                type='RandomFlip',
                                prob=0.5,
                                direction='vertical',
                            ),
                        ]
                    ],
                ),
                dict(type='PackSelfSupInputs', meta_keys=['img_path']),
            ],
        ),
    ),
    optimizer=dict(type='SGD', lr=0.1),
    optim_wrapper=dict(
        type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1), odd=1
    ),
    train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=3),
    custom_hooks=[dict(type='SelfSupVisualizationHook', interval=1)],
    default_hooks=dict(checkpoint=dict(type='MyHook', interval=10)),
    load_from='start.pth',
)


def test_mmselfsups_conventions():
    result = convert(MMSELFSUP, {})
    model = result.config['model']
    assert model['type'] == 'MoCoV1'
    assert model['m'] == 0.99  # already the weight of the old parameters
    assert model['backbone']['out_indices'] == (3,)
    assert model['neck']['gap_dim'] == 2 and model['neck']['norm_cfg'] is None
    assert model['dictionary'] == dict(type='Queue', size=4096, feat_dim=64)
    loader = result.config['train_dataloader']
    assert loader['batch_size'] == 16 and loader['drop_last'] is False
    assert loader['dataset']['data_prefix'] == 'train'
    view = loader['dataset']['pipeline'][1]['views']['view_q']
    assert view[:3] == [
        dict(
            type='FastRandomResizedCrop',
            size=96,
            scale=(0.3, 1.0),
        ),
        dict(type='FastGrayscale', prob=0.25),
        dict(type='FastGaussianBlur', sigma=(0.2, 1.5), prob=0.5),
    ]
    build_without_memory(Config(dict(model=model, default_scope='mmmoco')))


def test_every_unknown_field_is_listed():
    result = convert(MMSELFSUP, {})
    pipeline = 'train_dataloader.dataset.pipeline[1]'
    listed = {
        f'{pipeline}.view{n}[{i}].{key}'
        for n in (1, 2)
        for i, key in (
            (4, 'type'),
            (4, 'area'),
            (5, 'direction'),
        )
    }
    assert set(result.unknown) == listed | {
        'optim_wrapper.odd',
        'custom_hooks[0].type',
        'custom_hooks[0].interval',
        'default_hooks.checkpoint.type',
        'default_hooks.checkpoint.interval',
        'load_from',
    }
    assert result.variables == ['optimizer']


def test_an_unknown_field_stands_in_the_written_file(tmp_path, capsys):
    source, out = tmp_path / 'theirs.py', tmp_path / 'ours.py'
    source.write_text(
        f"_base_ = 'mmpretrain::{SHIPPED[0]}.py'\n"
        'optim_wrapper = dict(odd=7)\n'
    )
    cli.main(convert_config, [str(source), str(out)])
    assert '  optim_wrapper.odd = 7' in capsys.readouterr().out
    assert '# Not converted: optim_wrapper.odd = 7' in out.read_text()


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ("model = dict(type='MoCo')\ndata = dict(imgs_per_gpu=1)", '0.x'),
        ("model = dict(type='SimCLR')\ntrain_dataloader = dict()", 'SimCLR'),
        (
            f"_base_ = 'mmpretrain::{SHIPPED[0]}.py'\n"
            'model = dict(neck=dict(odd=1))',
            'does not build',
        ),
        (
            f"_base_ = 'mmpretrain::{SHIPPED[4]}.py'\n"
            "model = dict(backbone=dict(arch='odd'))",
            "arch='odd'",
        ),
    ],
)
def test_what_cannot_be_converted(tmp_path, capsys, text, message):
    source, out = tmp_path / 'theirs.py', tmp_path / 'ours.py'
    source.write_text(text)
    with pytest.raises(SystemExit) as stop:
        cli.main(convert_config, [str(source), str(out)])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error and 'Traceback' not in error
    assert not Path(out).exists()
