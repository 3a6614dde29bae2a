"""Options without sense end in one line, whatever they are."""

import contextlib
import copy
import io
import random

import pytest

from mmmoco.apis import cli, load_config
from mmmoco.apis.config.option_values import (
    check_option,
    check_values,
    places,
)
from mmmoco.apis.training.runner import build_runner
from mmmoco.engine.evaluation import build_evaluation

VALUES = (None, '', 'x', -1, 0, float('nan'), 1e30, [], {})
#: Left out: what names files and loggers, and the k-NN that is not run.
ELSEWHERE = ('knn', 'visualizer', 'work_dir', 'log_level', 'load_from')
#: How many of the values that are no nonsense by themselves are tried.
TRIED = 12


def leaves(cfg):
    for place, value in places(cfg._cfg_dict):
        if not isinstance(value, dict) and place.split('.')[0] not in (
            ELSEWHERE
        ):
            yield place


def outcome(cfg, place, value):
    """None if it trains; else what the user is told, None for a trace."""
    cfg = copy.deepcopy(cfg)
    try:
        check_option(cfg, place, value)
        cfg.merge_from_dict({place: value}, allow_list_keys=True)
        check_values(cfg)
        return 'passes', cfg
    except Exception as error:
        return 'refused', cli._explain(error)


def one_line(text):
    return bool(text) and len(text.splitlines()) == 1 and len(text) < 700


@pytest.mark.slow
def test_every_value_of_a_config_is_held_against_nonsense(small_config):
    """What is refused at once is refused in one line that names it."""
    cfg = small_config()
    refused = passed = 0
    for place in leaves(cfg):
        for value in VALUES:
            kind, found = outcome(cfg, place, value)
            if kind == 'passes':
                passed += 1
                continue
            refused += 1
            assert one_line(found), (place, value, found)
            assert place.split('.')[-1] in found, (place, value, found)
    assert refused > passed > 0


def survivors(cfg):
    for place in leaves(cfg):
        for value in VALUES:
            kind, found = outcome(cfg, place, value)
            if kind == 'passes':
                yield place, value, found


def attempt(cfg, name):
    """Train one epoch; return None, or what the user is told."""
    cfg.experiment_name = name
    quiet = io.StringIO()
    try:
        with contextlib.redirect_stdout(quiet):
            build_runner(cfg).train()
    except Exception as error:
        told = cli._explain(error)
        return f'TRACE {error!r}' if told is None else told
    return None


@pytest.mark.slow
def test_what_passes_runs_or_ends_in_one_line(small_config):
    cfg = small_config()
    cfg.train_cfg.max_epochs = 1
    cases = list(survivors(cfg))
    for number in random.Random(0).sample(range(len(cases)), TRIED):
        place, value, changed = cases[number]
        told = attempt(changed, f'nonsense_{number}')
        assert told is None or not told.startswith('TRACE'), (
            place,
            value,
            told,
        )


NONSENSE = {
    'train_dataloader.dataset.num_scenes': (-5, 0),
    'train_dataloader.batch_size': (-4, 0, 1.5, True),
    'train_dataloader.num_workers': (-1, 'automatic', 1.5),
    'knn.bank.num_workers': (-1, 'x'),
    'default_hooks.checkpoint.interval': (0, 'x'),
    'default_hooks.checkpoint.max_keep_ckpts': (0,),
    'default_hooks.logger.interval': (0,),
    'optim_wrapper.optimizer.lr': (float('nan'), -1, 'x', float('inf')),
    'train_cfg.max_epochs': (0, -1),
    'model.dictionary.size': (-8, 10**12),
    'knn.k': (0,),
    'optim_wrapper.accumulative_counts': (0,),
    'default_hooks': ('x',),
    'custom_hooks': ('[]',),
    'work_dir': (5,),
    'randomness.seed': (-1, 10**30),
    'model': ('x',),
    'train_dataloader.dataset': ('x',),
    'train_dataloader.drop_last': ('maybe', 2),
    'param_scheduler.7.T_max': (3,),
    'model.m.x': (3,),
}


@pytest.mark.parametrize('place', NONSENSE)
def test_nonsense_is_named(place):
    cfg = load_config('demo/mocov2_digits')
    for value in NONSENSE[place]:
        changed = copy.deepcopy(cfg)
        with pytest.raises(ValueError, match=place.split('.')[0]) as found:
            check_option(changed, place, value)
            changed.merge_from_dict({place: value})
            check_values(changed)
        assert one_line(str(found.value))


def test_the_other_convention_is_explained():
    with pytest.raises(ValueError, match=r'called m .* 0.001 is m=0.999'):
        load_config('mocov2_r50_8xb32', {'model.momentum': 0.001})


@pytest.mark.parametrize(
    ('place', 'value'),
    [
        ('model.m', 0.5),
        ('randomness.seed', None),
        ('optim_wrapper.optimizer.lr', 1),
        ('default_hooks.checkpoint.max_keep_ckpts', -1),
        ('train_dataloader.dataset.indices', (1, 2)),
        ('load_from', 'x.pth'),
        ('compile', True),
        ('model.backbone.frozen', 3),
        ('knn', None),
    ],
)
def test_sense_passes(place, value):
    cfg = load_config('demo/mocov2_digits')
    check_option(cfg, place, value)
    cfg.merge_from_dict({place: value})
    check_values(cfg)


@pytest.mark.parametrize(
    ('several', 'one', 'fits'),
    [
        ((20, 10), 3, True),
        ([0.5], 1, True),
        (['a'], 'b', True),
        ((20, 10), 'x', False),
        ((20, 10), True, False),
        ([dict(type='Pipe')], 3, False),
        ([], 3, False),
    ],
)
def test_one_may_stand_where_several_do(small_config, several, one, fits):
    cfg = small_config()
    cfg.knn.k = several
    if fits:
        check_option(cfg, 'knn.k', one)
    else:
        with pytest.raises(ValueError, match='has to be a list'):
            check_option(cfg, 'knn.k', one)


@pytest.mark.parametrize(
    ('key', 'meant'),
    [
        ('max_epochs', 'train_cfg.max_epochs'),
        ('batch_size', 'train_dataloader.batch_size'),
        ('temperature', 'knn.temperature'),
    ],
)
def test_a_setting_without_its_place(key, meant):
    with pytest.raises(KeyError, match=f'has no {key!r}. Is .*{meant}'):
        load_config('demo/mocov2_digits', {key: 3})


def test_settings_that_a_config_need_not_have():
    options = dict(schedule='keep', find_unused_parameters=True, compile=True)
    cfg = load_config('demo/mocov2_digits', options)
    assert cfg.find_unused_parameters and cfg.schedule == 'keep'


def test_a_name_that_the_config_only_computes_with():
    with pytest.raises(KeyError, match='to change it here changes nothing'):
        load_config('demo/mocov2_digits', {'scenes.num_scenes': 7})


def test_unknown_settings_of_knn():
    with pytest.raises(ValueError, match=r'knn\.kk is no setting'):
        build_evaluation('KNN', dict(bank={}, query={}, kk=3), seed=0)
