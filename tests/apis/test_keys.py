"""A misspelt key is refused, with the right one, before anything is built."""

import random
import re
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest

import mmmoco
from mmmoco.apis import load_config
from mmmoco.apis.config.keys import check_keys, check_option_keys, takers
from mmmoco.apis.config.option_values import check_option
from mmmoco.apis.lookup import PACKAGES
from mmmoco.engine.changes import READ

LETTERS = 'abcdefghijklmnopqrstuvwxyz'


def misspelt(name, rng):
    """Drop, swap or insert a letter."""
    place = rng.randrange(len(name))
    kind = rng.choice(('drop', 'swap', 'insert'))
    if kind == 'drop':
        return name[:place] + name[place + 1 :]
    if kind == 'swap':
        place = max(0, min(place, len(name) - 2))
        return name[:place] + name[place : place + 2][::-1] + name[place + 2 :]
    return name[:place] + rng.choice(LETTERS) + name[place:]


def keys_of(cfg):
    """Every dotted key: what holds it, and its name."""
    for name in cfg:
        if name in READ:
            yield '', name, {*cfg, *READ}
    for taker in takers(cfg):
        for name in taker.node:
            known = {*taker.node, *taker.takes.hints}
            yield f'{taker.place}.', name, known


def refusal(cfg, option, value):
    try:
        check_option(cfg, option, value)
        check_option_keys(cfg, cfg, [option])
    except (KeyError, ValueError) as error:
        return str(error.args[0])
    return None


def test_a_type_that_is_no_name_is_told_with_its_place():
    cfg = load_config('demo/mocov2_digits')
    typed = [taker for taker in takers(cfg) if 'type' in taker.node]
    assert len(typed) > 20
    for taker in typed:
        usual, taker.node['type'] = taker.node['type'], 3
        with pytest.raises(ValueError, match=f'{taker.place}.type=3: it has'):
            check_keys(cfg)
        taker.node['type'] = usual


@pytest.mark.slow
def test_every_key_of_every_config_misspelt_is_refused():
    """…with the right one; what nothing is known of is a small share."""
    rng = random.Random(0)
    tried, unchecked, samples = 0, Counter(), []
    for config in mmmoco.list_configs():
        cfg = load_config(config)
        for place, name, known in keys_of(cfg):
            wrong = misspelt(name, rng)
            # An option cannot name what has a dot in it, as custom_keys do.
            if not wrong or wrong in known or '.custom_keys.' in place:
                continue
            tried += 1
            option = f'{place}{wrong}'
            said = refusal(cfg, option, 1)
            if said is None:
                unchecked[f'{place}{name}'] += 1
                continue
            assert option in said and f'{name}' in said, (config, said)
            samples.append((config, option))
    share = sum(unchecked.values()) / tried
    assert tried > 5000 and share < 0.01, (tried, share, unchecked)
    for config, option in rng.sample(samples, 12):
        with pytest.raises(KeyError, match=r'did you mean|Is .* meant'):
            load_config(config, {option: 1})


PLACES = {
    'train_dataloader.dataset.data_rot': 'did you mean data_root',
    'train_dataloader.batchsize': 'did you mean batch_size',
    'train_dataloader.datset.data_root': 'did you mean dataset',
    'train_dataloader.dataset.pipeline.1.views.view_q.0.sise': 'mean size',
    'train_dataloader.dataset.dataroot': 'did you mean data_root',
    'model.queue_len': 'did you mean model.dictionary.size',
    'model.temperature': 'did you mean model.loss.temperature',
    'model.backbone.dpth': 'did you mean depth',
    'model.backbone.norm_cfg.requires_gard': 'mean requires_grad',
    'model.backbone.zzz': r'ResNet takes .*depth',
    'custom_hooks.3.intervall': 'did you mean interval',
    'default_hooks.checkpont.interval': 'did you mean checkpoint',
    'default_hooks.checkpoint.intervall': 'did you mean interval',
    'optim_wrapper.optimiser.lr': 'did you mean optimizer',
    'optim_wrapper.optimizer.weightdecay': 'did you mean weight_decay',
    'param_scheduler.0.tmax': r'did you mean T_max',
    'train_cfg.max_epoch': 'did you mean max_epochs',
    'knn.temprature': 'did you mean temperature',
    'randomness.sed': 'did you mean seed',
    'modle.m': 'Is model.m meant',
    # What there is in other tools.
    'batch_size': 'Is train_dataloader.batch_size',
    'lr': 'Is optim_wrapper.optimizer.lr meant',
    'epochs': 'Is train_cfg.max_epochs meant',
    'data': 'Is train_dataloader.dataset.data_root meant',
    'device': 'CUDA_VISIBLE_DEVICES',
    'gpus': 'dist_train.sh',
    'image_size': 'Is view_size .* meant',
    'pretrained': 'Is the option --load-from meant',
    # Names that were used already, with where.
    'crop.size': r'views.view_q.0.size, .*view_k.0.size .*, or view_size',
    'view_q.0.prob': r'views.view_q.1.prob',
    'images.data_root': r'Give train_dataloader.dataset.data_root, knn.bank',
    'eval_pipeline.3.size': r'Give knn.bank.dataset.pipeline.3.size, ',
}


@pytest.mark.parametrize('place', PLACES)
def test_what_is_said(place):
    with pytest.raises(KeyError) as found:
        load_config('mocov2_r50_8xb32', {place: 3})
    said = found.value.args[0]
    assert re.search(PLACES[place], said)
    named = said.removeprefix('--cfg-options ').partition(':')[0]
    assert place.startswith(named)
    assert len(said.splitlines()) == 1 and len(said) < 700


def test_a_name_that_is_right_elsewhere_is_not_proposed_again():
    options = {
        'train_cfg.type': 'IterBasedTrainLoop',
        'train_cfg.max_iters': 3,
        'train_cfg.max_epochs': 3,
    }
    with pytest.raises(KeyError, match='TrainLoop takes .*max_iters') as found:
        load_config('mocov2_r50_8xb32', options)
    assert 'did you mean' not in str(found.value)


@pytest.mark.parametrize(
    ('place', 'value', 'said'),
    [
        ('model.backbone.type', 'mmpretrain.ResNett', 'mean mmpretrain.ResN'),
        ('model.backbone.type', 'mmpretrain.resnet', 'mean mmpretrain.ResNet'),
        ('custom_hooks.3.type', 'MonitorHok', 'did you mean MonitorHook'),
        ('model.backbone.norm_cfg.type', 'SyncBNN', 'did you mean SyncBN'),
        ('knn.query.sampler.type', [1, 2], 'has to be a name'),
        ('train_dataloader.dataset._scope_', {}, 'has to be a name'),
        ('model.backbone.frozen_stages', 'all', 'wants a number'),
        ('custom_hooks.3.interval', 'often', 'whole number'),
        ('model.backbone.depth', 'deep', 'has to be a number'),
    ],
)
def test_types_and_kinds(place, value, said):
    with pytest.raises((KeyError, ValueError), match=said) as found:
        load_config('mocov2_r50_8xb32', {place: value})
    assert place in str(found.value)


@pytest.mark.parametrize(
    'options',
    [
        {'model.backbone.frozen_stages': 1},
        {'model.dictionary.exclude_same_image': True},
        {'model.backbone.norm_cfg.requires_grad': False},
        {'custom_hooks.3.priority': 'LOW'},
        {'train_dataloader.prefetch_factor': 4},
        {'optim_wrapper.optimizer.nesterov': True},
        {'optim_wrapper.paramwise_cfg.norm_decay_mult': 0.0},
        {'param_scheduler.0.eta_min': 1e-4},
        {'env_cfg.resource_limit': 4096},
        {'default_hooks.visualization.type': 'EmptyCacheHook'},
        {'train_dataloader.dataset.pipeline.1.views.view_3': []},
        {'optim_wrapper.optimizer.type': 'AdamW'},  # Which has no momentum.
        # A part of a type that the tests made up.
        {'model.backbone.type': 'MadeUp', 'model.backbone.width': 3},
    ],
)
def test_what_is_new_and_right_passes(options):
    cfg = load_config('mocov2_r50_8xb32', options)
    for place, value in options.items():
        node = cfg
        for part in place.split('.'):
            node = node[int(part) if part.isdigit() else part]
        assert node == value


def test_a_class_that_is_registered_again():
    """As a notebook does: the newest counts."""
    from mmmoco.registry import HOOKS

    def options(**given):
        return {'default_hooks.own': dict(type='OwnHook', **given)}

    load_config('mocov2_r50_8xb32', options(wide=1))  # Not known yet.
    try:
        for name in ('wide', 'long'):
            source = f'class OwnHook:\n def __init__(self, {name}): ...'
            exec(source, space := {})
            HOOKS.register_module(module=space['OwnHook'], force=True)
            load_config('mocov2_r50_8xb32', options(**{name: 1}))
        with pytest.raises(KeyError, match='OwnHook takes long'):
            load_config('mocov2_r50_8xb32', options(wide=1))
    finally:
        del HOOKS.module_dict['OwnHook']


FILE = """
_base_ = 'mmmoco::mocov2_r50_8xb32.py'
batch_size = 4
train_dataloader = dict(batch_size=batch_size)
"""


@pytest.mark.parametrize(
    ('line', 'said'),
    [
        ('', ''),
        ('custom_hooks = [dict(type="KNNHook", intervall=3)]', 'interval'),
        ('model = dict(backbone=dict(dpth=18))', 'depth'),
        ('knn = dict(bank=dict(dataset=dict(data_rot="x")))', 'data_root'),
        ('evaluations = dict(svm=dict(type="SVM", shts=1))', 'shots'),
    ],
)
def test_keys_of_a_file(tmp_path, line, said):
    path = tmp_path / 'mine.py'
    path.write_text(f'{FILE}{line}\n')
    if said:
        with pytest.raises(KeyError, match=f'did you mean .*{said}'):
            load_config(str(path))
    else:
        assert load_config(str(path)).train_dataloader.batch_size == 4


@pytest.mark.parametrize(
    ('name', 'meant'),
    [
        ('train_dataloder', 'train_dataloader'),
        ('custom_hook', 'custom_hooks'),
        ('resme', 'resume'),
        ('crops', None),
        ('test_pipeline', None),
        ('ann', None),
    ],
)
def test_near_misses_of_what_the_runner_reads(tmp_path, capfd, name, meant):
    path = tmp_path / 'mine.py'
    path.write_text(f'{FILE}{name} = dict(a=1)\n')
    load_config(str(path))
    said = ''.join(capfd.readouterr())
    assert (f'did you mean {meant}?' in said) == bool(meant)
    assert meant or 'did you mean' not in said


#: Configs of other libraries that are wrong themselves: what they say is not
#: taken by anything.
WRONG = {
    'mmdet::pascal_voc/faster-rcnn_r50_fpn_1x_voc0712-cocofmt.py',
    'mmdet::bytetrack/bytetrack_yolox_x_8xb4-80e_crowdhuman-mot20train_'
    'test-mot20test.py',
    'mmdet::bytetrack/bytetrack_yolox_x_8xb4-amp-80e_crowdhuman-mot20train_'
    'test-mot20test.py',
}


@pytest.mark.slow
@pytest.mark.downstream
@pytest.mark.parametrize('package', [*PACKAGES][1:])
def test_configs_of_the_other_libraries_are_not_refused(package, capfd):
    spec = find_spec(package)
    root = Path(spec.submodule_search_locations[0]) / '.mim' / 'configs'
    paths = [p.relative_to(root).as_posix() for p in root.rglob('*.py')]
    names = sorted(
        f'{package}::{path}'
        for path in paths
        if not path.startswith(('_base_/', f'{package}/'))
    )
    chosen = random.Random(0).sample(names, 40)
    for name in chosen:
        try:
            load_config(name)
        except KeyError as error:
            said = str(error.args[0])
            assert name in WRONG or ' takes ' not in said, (name, said)
        except (OSError, RuntimeError):
            continue  # Bases that the package lacks.
    assert 'did you mean' not in ''.join(capfd.readouterr())
