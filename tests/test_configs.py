"""Every shipped config is read, and held against what it claims."""

from pathlib import Path

import pytest

import mmmoco
from mmmoco.apis import load_config
from mmmoco.apis.config import config_root, resolve_config
from mmmoco.apis.model import build_without_memory

NAMES = mmmoco.list_configs()
#: Total parameters, key encoder included (published or counted from the
#: published architectures).
PARAMETERS = {'mocov2_r50_8xb32': 55_933_312}


def test_the_list_is_not_empty():
    assert 'mocov2_r50_8xb32' in NAMES and 'demo/mocov2_digits' in NAMES
    assert not [name for name in NAMES if '_base_' in name]
    assert mmmoco.list_configs('digits') == ['demo/mocov2_digits']


@pytest.mark.parametrize('name', NAMES)
def test_config_opens_with_its_four_lines_and_is_short(name):
    lines = resolve_config(name).read_text().splitlines()
    assert all(line.startswith('# ') for line in lines[:4])
    for word, line in zip(('Hardware', 'Time', 'Metric'), lines[1:4]):
        assert line.startswith(f'# {word}: '), line


@pytest.mark.parametrize('name', NAMES)
def test_config_builds_on_the_meta_device(name):
    cfg = load_config(name)
    model = build_without_memory(cfg)
    total = sum(p.numel() for p in model.parameters())
    if name in PARAMETERS:
        assert total == PARAMETERS[name]
    hooks = {hook.type for hook in cfg.custom_hooks}
    assert model.needs <= hooks
    assert cfg.optim_wrapper.type == 'ContrastOptimWrapper'


def test_mocov2_is_the_published_recipe():
    """arXiv 2003.04297 and the authors' code, item by item."""
    cfg = load_config('mocov2_r50_8xb32')
    optimizer = cfg.optim_wrapper.optimizer
    assert optimizer.to_dict() == dict(
        type='SGD', lr=0.03, momentum=0.9, weight_decay=1e-4
    )
    assert cfg.optim_wrapper.get('dtype', 'float32') == 'float32'
    (schedule,) = cfg.param_scheduler
    assert (schedule.type, schedule.T_max) == ('CosineAnnealingLR', 200)
    assert schedule.by_epoch and not schedule.get('convert_to_iter_based')
    assert cfg.train_cfg.max_epochs == 200
    assert cfg.auto_scale_lr.base_batch_size == 256
    model = cfg.model
    assert (model.m, model.loss.temperature) == (0.999, 0.2)
    assert model.get('m_schedule', 'constant') == 'constant'
    assert (model.dictionary.size, model.dictionary.feat_dim) == (65536, 128)
    assert model.backbone.zero_init_residual is False
    loader = cfg.train_dataloader
    assert loader.batch_size == 32 and loader.drop_last
    views = loader.dataset.pipeline[1].views
    assert views.view_q == views.view_k
    crop, jitter, grey, blur, flip = views.view_q
    assert (crop.size, tuple(crop.scale)) == (224, (0.2, 1.0))
    colour = jitter.transforms[0]
    assert jitter.prob == 0.8
    strength = [
        colour[k] for k in ('brightness', 'contrast', 'saturation', 'hue')
    ]
    assert strength == [0.4, 0.4, 0.4, 0.1]
    assert grey.p == 0.2
    assert (blur.prob, tuple(blur.sigma)) == (0.5, (0.1, 2.0))
    assert flip.type.endswith('RandomHorizontalFlip') and len(flip) == 1


def test_weight_decay_covers_every_trainable_parameter(small_config):
    """As published: BatchNorm and biases too."""
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import init_default_scope

    from mmmoco.apis import get_model

    cfg = small_config()
    init_default_scope('mmmoco')
    model = get_model(cfg)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    groups = wrapper.optimizer.param_groups
    trainable = [p for p in model.parameters() if p.requires_grad]
    decayed = {id(p) for g in groups for p in g['params']}
    assert {id(p) for p in trainable} <= decayed
    assert {g['weight_decay'] for g in groups} == {5e-4}


def test_base_of_another_package(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(
        "_base_ = 'mmmoco::mocov2_r50_8xb32.py'\n"
        'model = dict(loss=dict(temperature=0.1))\n'
    )
    cfg = load_config(str(path))
    assert cfg.model.loss.temperature == 0.1
    assert cfg.model.dictionary.size == 65536


@pytest.mark.downstream
@pytest.mark.parametrize(
    'base',
    [
        'mmpretrain::resnet/resnet50_8xb32_in1k.py',
        'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
        'mmseg::fcn/fcn_r50-d8_4xb4-20k_voc12aug-512x512.py',
    ],
)
def test_configs_of_the_other_libraries(base, tmp_path):
    assert load_config(base).model.backbone.type.startswith('ResNet')
    path = tmp_path / 'mine.py'
    path.write_text(f"_base_ = '{base}'\n")
    inherited = load_config(str(path)).model.to_dict()
    assert inherited.pop('_scope_') == base.partition('::')[0]
    assert inherited == load_config(base).model.to_dict()


def test_unknown_names_suggest_known_ones():
    with pytest.raises(FileNotFoundError, match='mocov2_r50_8xb32'):
        resolve_config('mocov2_r51')
    with pytest.raises(FileNotFoundError, match='nowhere::'):
        resolve_config('nowhere::x.py')
    with pytest.raises(KeyError, match='modle'):
        load_config('mocov2_r50_8xb32', {'modle.m': 0.9})


def test_the_checkout_and_the_package_show_the_same_configs():
    root = config_root()
    assert (root / '_base_' / 'default_runtime.py').is_file()
    assert Path(root).name == 'configs'
