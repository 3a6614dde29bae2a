"""The learning rate of whole runs: as published, fitted, kept, resumed."""

import math
from pathlib import Path

import pytest
import torch
from mmengine.registry import init_default_scope

from mmmoco.apis import load_config
from mmmoco.engine.schedule import (
    Length,
    Schedule,
    Trial,
    fit,
    mismatch,
    near_miss,
)
from mmmoco.models.encoders import momentum_at


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmmoco')


def rates(configs, length, lr=1.0):
    """Every iteration's rate, by the real schedulers."""
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=lr)
    schedule = Schedule(configs, length, 'keep')
    optimizer.param_groups[0]['initial_lr'] = lr
    trial = Trial(schedule.configs, optimizer.param_groups, length)
    found = [trial.rate()]
    for iteration in range(1, length.iterations):
        trial.go(iteration)
        found.append(trial.rate())
    return found


def published(name):
    """The authors' formula for epoch e (with its fraction) of E."""
    half = lambda x: 0.5 * (1 + math.cos(math.pi * x))  # noqa: E731
    v3 = lambda w: (  # noqa: E731
        lambda e, total: e / w if e < w else half((e - w) / (total - w))
    )
    return {
        'mocov1_r50_8xb32': lambda e, total: (
            0.1 ** ((int(e) >= 120) + (int(e) >= 160))
        ),
        'mocov2_r50_8xb32': lambda e, total: half(int(e) / total),
        'mocov2_r50_8xb32_800e': lambda e, total: half(int(e) / total),
        'mocov2_r18_1xb512_cifar10': lambda e, total: half(
            (int(e) + 1) / total
        ),
        'mocov3_r50_16xb256_100e': v3(10),
        'mocov3_r50_16xb256_300e': v3(10),
        'mocov3_r50_16xb256_1000e': v3(10),
        'mocov3_vit-s_32xb128_300e': v3(40),
        'mocov3_vit-b_64xb64_300e': v3(40),
    }[name]


@pytest.mark.parametrize(
    ('name', 'epoch'),
    [
        ('mocov1_r50_8xb32', 7),
        ('mocov2_r50_8xb32', 7),
        ('mocov2_r50_8xb32_800e', 3),
        ('mocov2_r18_1xb512_cifar10', 5),
        ('mocov3_r50_16xb256_100e', 31),
        ('mocov3_r50_16xb256_300e', 13),
        ('mocov3_r50_16xb256_1000e', 4),
        ('mocov3_vit-s_32xb128_300e', 17),
        ('mocov3_vit-b_64xb64_300e', 31),
    ],
)
def test_every_iteration_is_as_published(name, epoch):
    cfg = load_config(name)
    total = cfg.train_cfg.max_epochs
    length = Length(total * epoch, epoch, by_epoch=True)
    assert mismatch(cfg.param_scheduler, length) is None
    assert near_miss(cfg.param_scheduler, length) is None
    formula = published(name)
    for i, rate in enumerate(rates(cfg.param_scheduler, length)):
        assert rate == pytest.approx(formula(i / epoch, total), abs=1e-8), i


def test_the_key_momentum_is_that_of_v3_at_every_iteration():
    """The hook moves with m of the coming iteration: main_moco.py's order."""
    epochs, epoch, base = 30, 11, 0.99
    total = epochs * epoch
    for i in range(total):  # after iteration i
        e = (i + 1) / epoch
        theirs = 1 - 0.5 * (1 + math.cos(math.pi * e / epochs)) * (1 - base)
        ours = momentum_at(base, 'cosine', (i + 1) / total)
        assert ours == pytest.approx(theirs, abs=1e-12)


# Other lengths

COSINE = dict(type='CosineAnnealingLR', T_max=20, by_epoch=True)
STEPS = dict(type='MultiStepLR', milestones=[12, 16], by_epoch=True)
WARM = dict(
    type='WarmupLR', begin=0, end=4, by_epoch=True, convert_to_iter_based=True
)
AFTER = dict(
    type='CosineAnnealingLR',
    T_max=16,
    begin=4,
    end=20,
    by_epoch=True,
    convert_to_iter_based=True,
)
LINEAR = {**WARM, 'type': 'LinearLR', 'start_factor': 0.001}
POLY = dict(type='PolyLR', end=100, by_epoch=False)
RESTARTS = dict(
    type='CosineRestartLR',
    periods=[10, 10],
    restart_weights=[1, 0.5],
    eta_min=0.0,
)
KINDS = {
    'cosine': [COSINE],
    'steps': [{**STEPS, 'end': 20}],
    'step': [dict(type='StepLR', step_size=5, end=20)],
    'warm-up, cosine': [WARM, AFTER],
    'linear, cosine': [LINEAR, AFTER],
    'poly': [POLY],
    'restarts': [RESTARTS],
    'one cycle': [dict(type='OneCycleLR', eta_max=1.0, total_steps=20)],
}


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('by_epoch', [True, False])
@pytest.mark.parametrize('factor', [0.1, 0.25, 0.5, 2, 3.3])
def test_fit_has_the_same_shape_over_any_length(kind, by_epoch, factor):
    configs = KINDS[kind]
    length = Length(100, 5, by_epoch=True)  # 20 epochs
    assert mismatch(configs, length) is None
    before = rates(configs, length)
    other = Length(round(20 * factor) * 5, 5, by_epoch)
    if factor != 1:
        assert mismatch(configs, other), 'the check can fail'
    fitted = fit(configs, other)
    assert mismatch(fitted, other) is None
    after = rates(fitted, other)
    # Compared where both are: at the same share of the run, up to a step.
    slack = max(5, 5 * 100 / other.iterations)
    for i, rate in enumerate(after):
        at = i * 100 / other.iterations
        near = before[int(max(at - slack, 0)) : int(at + slack) + 2]
        assert min(near) - 0.08 <= rate <= max(near) + 0.08, (i, rate, near)


@pytest.mark.parametrize(
    ('configs', 'epochs', 'words'),
    [
        ([COSINE], 18, 'ends at epoch 20, the run at epoch 18'),
        ([COSINE], 22, 'ends at epoch 20, the run at epoch 22'),
        ([COSINE], 19, None),
        ([COSINE], 20, None),
        ([COSINE], 21, None),
        ([WARM], 2, 'ends at epoch 4'),
        ([WARM], 200, None),
        ([WARM, AFTER], 2, 'ends at epoch 20'),
        ([STEPS], 20, None),
        ([STEPS], 8, 'ends at epoch 16'),
        ([], 7, None),
        ([dict(type='ExponentialLR', gamma=0.9)], 7, None),
    ],
)
def test_what_is_a_mismatch(configs, epochs, words):
    found = mismatch(configs, Length(epochs * 6, 6, by_epoch=True))
    assert (found is None) if words is None else words in found


@pytest.mark.parametrize('by_epoch', [True, False])
@pytest.mark.parametrize('kind', KINDS)
def test_a_schedule_that_is_cut_is_told(kind, by_epoch):
    """Where it misses the end by less than is refused, too."""
    configs = fit(KINDS[kind], Length(100, 10, by_epoch))
    per_epoch = any(config.get('by_epoch', True) for config in configs)
    if per_epoch and not by_epoch:
        pytest.skip('it would never move')
    for end, told in ((90, True), (100, False), (110, not per_epoch)):
        length = Length(end, 10, by_epoch)
        assert mismatch(configs, length) is None
        assert (near_miss(configs, length) is not None) == told, end
        assert not Schedule(configs, length, 'keep').near
        assert not Schedule(configs, length, 'fit').near


def test_a_schedule_that_an_iteration_based_run_never_moves():
    found = mismatch([COSINE], Length(100, 5, by_epoch=False))
    assert 'would never move' in found


@pytest.mark.parametrize('kind', KINDS)
def test_moving_equals_having_gone(kind):
    """At every iteration, for one group and for many."""
    length = Length(100, 5, by_epoch=True)
    groups = [dict(lr=lr, initial_lr=lr) for lr in (0.3, 0.1, 0.3, 0.2)]
    configs = Schedule(KINDS[kind], length, 'keep').configs
    whole = Trial(configs, groups, length)
    for i in range(0, 100, 7):
        whole.go(i)
        direct = Trial(configs, groups, length)
        direct.go(i)
        assert direct.states()[0].keys() == whole.states()[0].keys()
        assert str(direct.states()) == str(whole.states())
        assert len(direct.states()[0]['base_values']) == 4


# Runs


def cosine_of(cfg, epochs, schedule=None):
    cfg.train_cfg.max_epochs = epochs
    cfg.param_scheduler = [
        dict(type='CosineAnnealingLR', T_max=epochs, by_epoch=True)
    ]
    cfg.schedule = schedule
    return cfg


def lr_of(runner):
    history = runner.message_hub.get_scalar('train/lr').data[0]
    return [float(value) for value in history]


def log_of(runner):
    return Path(runner.log_dir, f'{runner.timestamp}.log').read_text()


def test_a_run_that_its_schedule_does_not_fit(small_config, runner_of):
    cfg = cosine_of(small_config(), 5)
    cfg.train_cfg.max_epochs = 2
    with pytest.raises(ValueError, match='ends at epoch 5, the run at epo'):
        runner_of(cfg).train()
    cfg.schedule = 'stretch'
    with pytest.raises(ValueError, match="schedule='stretch' is unknown"):
        runner_of(cfg).train()
    cfg.schedule = 'fit'
    fitted = runner_of(cfg)
    fitted.train()
    assert set(lr_of(fitted)) == {0.03, 0.015}
    said = '0.03 first, 0.03 at most, 0.015 last (fitted)'
    assert said in log_of(fitted)


def test_a_prolonged_run_follows_the_new_cosine(small_config, runner_of):
    runner_of(cosine_of(small_config(), 3)).train()
    cfg = cosine_of(small_config(), 6)
    cfg.resume = True
    runner = runner_of(cfg)
    runner.train()
    assert runner.iter == 24
    expected = [
        0.015 * (1 + math.cos(math.pi * e / (3 if e < 3 else 6)))
        for e in range(6)
        for _ in range(4)
    ]
    assert lr_of(runner) == pytest.approx(expected)
    log = log_of(runner)
    assert 'T_max 3 before, 6 now' in log
    assert 'At iteration 12 the learning rate is 0.015 instead of 0' in log


@pytest.mark.parametrize(
    ('kind', 'before', 'now', 'expected'),
    [
        ('MultiStepLR', dict(milestones=[1]), dict(milestones=[3]), 0.03),
        ('MultiStepLR', dict(milestones=[9]), dict(milestones=[1, 2]), 3e-4),
        (
            'CosineRestartLR',
            dict(periods=[2], restart_weights=[1]),
            dict(periods=[2, 2], restart_weights=[1, 0.5]),
            0.015,
        ),
    ],
)
def test_a_resumed_run_may_have_other_milestones(
    small_config, runner_of, kind, before, now, expected
):
    """The rate of the third epoch is that of the config."""
    extra = dict(eta_min=0.0) if 'periods' in now else dict(end=9)
    cfg = small_config(schedule='keep')
    cfg.param_scheduler = [dict(type=kind, **before, **extra)]
    cfg.train_cfg.max_epochs = 2
    runner_of(cfg).train()
    cfg.param_scheduler = [dict(type=kind, **now, **extra)]
    cfg.train_cfg.max_epochs = 3
    cfg.resume = True
    runner = runner_of(cfg)
    runner.train()
    assert runner.iter == 12
    assert lr_of(runner)[-1] == pytest.approx(expected)
    assert 'The schedule of the config counts' in log_of(runner)


@pytest.mark.slow
def test_a_run_of_an_earlier_version_keeps_its_warm_up(
    small_config, runner_of
):
    def config(warmup, epochs=4):
        cfg = small_config()
        cfg.train_cfg.max_epochs = epochs
        cfg.default_hooks.checkpoint.max_keep_ckpts = -1
        cfg.param_scheduler = [
            dict(
                **warmup,
                begin=0,
                end=2,
                by_epoch=True,
                convert_to_iter_based=True,
            ),
            dict(
                type='CosineAnnealingLR',
                T_max=2,
                begin=2,
                end=4,
                by_epoch=True,
                convert_to_iter_based=True,
            ),
        ]
        return cfg

    older = dict(type='LinearLR', start_factor=1e-4)
    whole = runner_of(config(older))
    whole.train()
    ours = runner_of(config(dict(type='WarmupLR')))
    ours.train()
    assert lr_of(ours) != lr_of(whole)
    assert lr_of(ours)[:9] == pytest.approx([0.03 * t / 8 for t in range(9)])
    cfg = config(dict(type='WarmupLR'))
    cfg.load_from, cfg.resume = f'{cfg.work_dir}/epoch_1.pth', True
    runner_of(config(older)).train()  # its checkpoints again
    resumed = runner_of(cfg)
    resumed.train()
    assert lr_of(resumed) == lr_of(whole)  # bit for bit
    assert 'begun with an earlier version' in log_of(resumed)
