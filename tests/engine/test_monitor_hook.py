"""The monitors in real runs of the real runner."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from mmmoco.apis import cli, load_config
from mmmoco.apis.training.jobs import train
from mmmoco.engine import checkpoint_io
from mmmoco.engine.bare_model import bare_model
from mmmoco.engine.collapse import CollapseError
from mmmoco.engine.key_probe import KeyProbe

pytestmark = pytest.mark.slow

#: A net and a run just large enough to learn, or to collapse.
LEARNING = {
    'train_dataloader.dataset.num_scenes': 256,
    'train_dataloader.batch_size': 32,
    'model.backbone.channels': (8, 16),
    'model.neck.in_channels': 16,
    'model.neck.hid_channels': 32,
    'default_hooks.checkpoint.interval': 1000,
}


@pytest.fixture
def monitored(small_config):
    """Return a function that makes a config with its own MonitorHook."""

    def make(monitor=None, **options):
        cfg = small_config(**options)
        (hook,) = [h for h in cfg.custom_hooks if h.type == 'MonitorHook']
        hook.update(interval=1, **(monitor or {}))
        return cfg

    return make


def curve(runner, name):
    return [float(v) for v in runner.message_hub.get_scalar(name).data[0]]


def log_of(runner):
    (path,) = Path(runner.log_dir).glob('*.log')
    return path.read_text()


def make_constant(model):
    """Let the projection return the same vector for every image."""
    for network in (model.neck, model.key_encoder.neck):
        last = [m for m in network.modules() if hasattr(m, 'weight')][-1]
        with torch.no_grad():
            last.weight.zero_()
            last.bias.fill_(1.0)


def test_the_monitors_reach_the_log(monitored, runner_of):
    runner = runner_of(monitored(**{'train_cfg.max_epochs': 3}))
    runner.train()
    path = Path(runner.log_dir) / 'vis_data' / 'scalars.json'
    lines = [json.loads(x) for x in path.read_text().splitlines()]
    last = [line for line in lines if 'loss' in line][-1]
    assert 0 < last['feature_std'] <= 1.01
    assert 1 <= last['feature_rank'] <= 16
    assert -1 <= last['old_key_sim'] <= 1.0001
    assert last['queue_age'] == 4  # 64 keys, 16 a step
    assert 0 <= last['data_wait'] < 1
    assert last['images_per_s'] > 0 and last['grad_norm'] > 0
    assert last['alarms'] == 0
    model = bare_model(runner)
    assert model.queries.shape == (16, 64)
    assert not model.queries.requires_grad

    environment = json.loads(
        (Path(runner.log_dir) / 'environment.json').read_text()
    )
    assert environment['torch'] in torch.__version__
    assert environment['processes'] == 1
    images = len(runner.train_dataloader.dataset)
    assert environment['training images'] == images


def test_watching_changes_nothing(monitored, runner_of):
    """Weights, statistics and queue are those of an unwatched run."""
    states = []
    for watched in (True, False):
        cfg = monitored(**{'train_cfg.max_epochs': 2})
        if not watched:
            cfg.custom_hooks = [
                h for h in cfg.custom_hooks if h.type != 'MonitorHook'
            ]
        runner = runner_of(cfg)
        runner.train()
        assert ('train/feature_std' in runner.message_hub.log_scalars) == (
            watched
        )
        states.append(bare_model(runner).state_dict())
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name


def test_keys_are_compared_after_their_time_in_the_queue(monitored, runner_of):
    cfg = monitored(
        **{
            'train_cfg.max_epochs': 2,
            # Two iterations a step, so four steps, eight iterations.
            'optim_wrapper.accumulative_counts': 2,
            'train_dataloader.dataset.num_scenes': 160,
            'model.dictionary.size': 128,
            'model.m': 0.5,
        }
    )
    runner = runner_of(cfg)
    kept = {}
    keep, compare = KeyProbe.keep, KeyProbe.similarity

    def noted_keep(probe, data, now, age):
        keep(probe, data, now, age)
        kept[now] = (probe._images, probe._keys, age)

    def noted(probe, now):
        found = compare(probe, now)
        if found is not None:
            start = max(kept)
            images, old, age = kept[start]
            assert now - start == age == 4
            new = F.normalize(
                probe.model.key_encoder(images)[-1].float(), dim=1
            )
            expected = F.cosine_similarity(old, new).mean()
            assert found == pytest.approx(float(expected), abs=1e-3)
            assert found < 0.9999  # The key encoder has moved.
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KeyProbe, 'keep', noted_keep)
        patch.setattr(KeyProbe, 'similarity', noted)
        runner.train()
    assert len(curve(runner, 'train/old_key_sim')) == 2
    assert curve(runner, 'train/queue_age') == [1, 2, 3, *[4] * 7]


def test_a_resting_key_encoder_gives_the_same_keys(monitored, runner_of):
    options = {'train_cfg.max_epochs': 2, 'model.m': 1.0}
    runner = runner_of(monitored(**options))
    runner.train()
    found = curve(runner, 'train/old_key_sim')
    assert found and found == pytest.approx([1.0] * len(found), abs=1e-4)


def test_probing_leaves_no_trace(small_config):
    from mmmoco.apis import get_model

    model = get_model(small_config()).train()
    before = {n: v.clone() for n, v in model.state_dict().items()}
    random = torch.get_rng_state()
    x = torch.randn(8, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    keys = KeyProbe(model, 2).encode(x)
    assert torch.equal(random, torch.get_rng_state())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    torch.testing.assert_close(keys.norm(dim=1), torch.ones(8))
    # By the statistics of the batch, as in training.
    own = F.normalize(model.key_encoder(x)[-1].float(), dim=1)
    torch.testing.assert_close(keys, own)


@pytest.mark.parametrize(
    ('options', 'alarm'),
    [
        ({}, False),
        ({'model.m': 0.0, 'model.allow_any_m': True}, True),
        ({'optim_wrapper.optimizer.lr': 3.0}, True),
        ({'optim_wrapper.optimizer.lr': 100.0}, True),
    ],
    ids=['healthy', 'm = 0', 'lr x 100', 'lr x 3000'],
)
@pytest.mark.slow
def test_what_makes_a_run_collapse_raises_the_alarm(
    monitored, runner_of, options, alarm
):
    cfg = monitored(
        {'grace': 10}, **LEARNING, **{'train_cfg.max_epochs': 6}, **options
    )
    runner = runner_of(cfg)
    runner.train()
    alarms = curve(runner, 'train/alarms')[-1]
    text = log_of(runner)
    assert (alarms > 0) == alarm
    assert ('COLLAPSE' in text or 'NOT FINITE' in text) == alarm


def test_constant_features_warn_once_and_loudly(monitored, runner_of):
    limits = {'grace': 0, 'patience': 2, 'repeat': 5}
    cfg = monitored(
        limits,
        **{'train_cfg.max_epochs': 2, 'optim_wrapper.optimizer.lr': 0.0},
    )
    runner = runner_of(cfg)
    make_constant(bare_model(runner))
    # init_weights() would undo it.
    bare_model(runner).init_weights = lambda: None
    runner.train()
    assert curve(runner, 'train/feature_std') == pytest.approx(
        [0] * 8, abs=1e-5
    )
    assert curve(runner, 'train/feature_rank') == pytest.approx(
        [1] * 8, abs=1e-3
    )
    assert curve(runner, 'train/alarms') == [0, 1, 2, 3, 4, 5, 6, 7]
    text = log_of(runner)
    assert text.count('COLLAPSE') == 2  # At the first and the sixth alarm.
    assert 'Iteration 2: COLLAPSE' in text and 'learning rate' in text


def test_nan_is_noticed_at_once(monitored, runner_of):
    runner = runner_of(monitored())
    model = bare_model(runner)
    model.init_weights = lambda: None
    with torch.no_grad():
        next(model.neck.parameters()).fill_(float('nan'))
    runner.train()
    text = log_of(runner)
    assert text.count('NOT FINITE') == 1 and 'the loss is nan' in text
    assert curve(runner, 'train/alarms') == [1, 2, 3, 4]


def test_stop_on_collapse_saves_and_says_why(
    monitored, runner_of, tmp_path, capsys
):
    cfg = monitored({'stop_on_collapse': True, 'min_spread': 2.0, 'grace': 0})
    with pytest.raises(CollapseError, match='iteration 3.*feature'):
        runner_of(cfg).train()
    path = Path(cfg.work_dir) / 'iter_3_collapsed.pth'
    saved = checkpoint_io.read(str(path))
    assert saved['meta']['iter'] == 3 and 'optimizer' in saved
    # Never resumed from by itself.
    assert checkpoint_io.find_latest(cfg.work_dir) is None

    file = tmp_path / 'config.py'
    cfg.dump(str(file))
    with pytest.raises(SystemExit) as stop:
        cli.main(train, [str(file), '--work-dir', str(tmp_path / 'tool')])
    assert stop.value.code == 2
    errors = capsys.readouterr().err
    assert 'stop_on_collapse' in errors and 'Traceback' not in errors


def test_alarms_go_on_counting_after_a_resume(monitored, runner_of):
    limits = {'min_spread': 2.0, 'grace': 0, 'patience': 1}
    cfg = monitored(limits)
    first = runner_of(cfg)
    first.train()
    assert curve(first, 'train/alarms')[-1] == 4
    cfg = monitored(limits, **{'train_cfg.max_epochs': 2})
    cfg.resume = True
    cfg.load_from = str(Path(first.work_dir) / 'epoch_1.pth')
    second = runner_of(cfg)
    second.train()
    assert curve(second, 'train/alarms')[-1] == 8


def test_other_dictionaries_have_no_old_keys(monitored, runner_of):
    cfg = monitored()
    cfg.model.dictionary = dict(type='InBatch')
    runner = runner_of(cfg)
    runner.train()
    names = runner.message_hub.log_scalars
    assert 'train/feature_std' in names
    assert 'train/old_key_sim' not in names


@pytest.mark.parametrize('option', ['interval', 'repeat'])
def test_intervals_are_positive(monitored, runner_of, option):
    cfg = monitored()
    cfg.custom_hooks[3][option] = 0
    with pytest.raises(ValueError, match=f'{option}=0'):
        runner_of(cfg)


def test_every_algorithm_shows_its_queries():
    """What the monitors look at is what the loss was computed of."""
    from mmmoco.apis import get_model

    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for name, views in (
        ('mocov3_vit-s_1xb256_cifar10-96px', ('view_1', 'view_2')),
        ('distill_vit-s_1xb256_dinov2_cifar10-96px', ('view',)),
    ):
        arch = dict(
            embed_dims=16,
            num_layers=1,
            num_heads=2,
            feedforward_channels=16,
        )
        cfg = load_config(name)
        for part in ('backbone', 'teacher'):
            if part in cfg.model:
                cfg.model[part].update(arch=arch, init_cfg=None)
        if 'neck' in cfg.model:
            cfg.model.neck.in_channels = 16
        model = get_model(cfg).train()
        assert model.queries is None
        model.loss(dict.fromkeys(views, x), torch.arange(4))
        assert len(model.queries) == 4 and not model.queries.requires_grad
        if hasattr(model, 'encode_query'):
            expected = model.encode_query(x)
        else:
            expected = model.adapter(model.student_tokens(x).cls)
        torch.testing.assert_close(model.queries, expected.detach())
