"""m for another batch: every value to the power that the lr is scaled by."""

import re
from pathlib import Path

import pytest

from mmmoco.apis import load_config
from mmmoco.apis.training.train import prepare
from mmmoco.engine import checkpoint_io
from mmmoco.engine.scaled_momentum import batch_of_m
from mmmoco.models.encoders import momentum_at

from ..configs.names import OWN

#: The small run's 16 images, two at a time: κ = 4 for a batch of 8.
SCALED = {
    'optim_wrapper.accumulative_counts': 2,
    **{f'auto_scale_{x}.base_batch_size': 8 for x in ('lr', 'm')},
    **{f'auto_scale_{x}.enable': True for x in ('lr', 'm')},
    'default_hooks.checkpoint.by_epoch': False,
    'default_hooks.checkpoint.interval': 2,
}


def train(runner_of, cfg):
    """Return the m of every iteration, and the lines that tell of it."""
    runner = runner_of(cfg)
    runner.train()
    text = next(Path(runner.log_dir).glob('*.log')).read_text()
    m = runner.message_hub.get_scalar('train/m').data[0].tolist()
    return m, re.findall(r'- (m\b.*)', text)


@pytest.mark.parametrize('schedule', ['constant', 'cosine'])
def test_every_m_is_raised_and_a_resume_goes_on_with_it(
    small_config, runner_of, schedule
):
    options = {**SCALED, 'model.m_schedule': schedule}
    m, said = train(runner_of, small_config(**options))
    expected = [momentum_at(0.99, schedule, t / 4) ** 4 for t in range(1, 5)]
    assert m == pytest.approx(expected, abs=1e-12)
    ends = {
        'constant': '.',
        'cosine': ' at the start, every value likewise.',
    }
    line = 'm for batch 8 scaled to 32: 0.99^4 = 0.960596'
    assert said == [line + ends[schedule]]

    cfg = small_config(**options)
    cfg.load_from, cfg.resume = str(Path(cfg.work_dir, 'iter_2.pth')), True
    cfg.work_dir += '/again'  # The log is named by the second.
    cfg.auto_scale_m.enable = False
    m, said = train(runner_of, cfg)
    assert m[2:] == pytest.approx(expected[2:], abs=1e-12)
    how = 'the power as the checkpoint has it.'
    assert said == [f'm: 0.99^4 = 0.960596{ends[schedule][:-1]}, {how}']


def test_a_resume_scales_by_the_change_of_the_batch_alone(
    small_config, runner_of
):
    """The file is of a run that did not scale: batch 32, m as it stands."""
    options = {**SCALED, 'auto_scale_m.enable': False}
    assert train(runner_of, small_config(**options)) == ([0.99] * 4, [])
    file = str(Path(small_config().work_dir, 'iter_2.pth'))
    assert 'm_power' not in checkpoint_io.read(file)['meta']
    for accumulation, power, how in (
        (2, 1, 'as the checkpoint has it'),
        (1, 0.5, 'times 0.5'),
    ):
        cfg = small_config(**SCALED)
        cfg.optim_wrapper.accumulative_counts = accumulation
        cfg.load_from, cfg.resume = file, True
        cfg.work_dir += f'/{accumulation}'
        m, said = train(runner_of, cfg)
        assert m[2:] == pytest.approx([0.99**power] * 2)
        assert said[1:] == [
            f'm: 0.99^{power:g} = {0.99**power:.6g}, the power {how}.'
        ]


def test_a_power_that_is_none_is_refused(small_config, runner_of):
    cfg = small_config()
    train(runner_of, cfg)
    path = str(Path(cfg.work_dir, 'epoch_1.pth'))
    content = checkpoint_io.read(path)
    for value in (0.0, -1.0, float('nan'), 'four', True, 1e9):
        content['meta']['m_power'] = value
        checkpoint_io.write(content, path)
        cfg = small_config()
        cfg.load_from, cfg.resume = path, True
        with pytest.raises(checkpoint_io.CheckpointError, match='m_power'):
            runner_of(cfg).train()


@pytest.mark.parametrize('name', [n for n in OWN if 'xb' in n])
def test_configs_say_which_batch_their_m_is_meant_for(name):
    cfg = load_config(name)
    if 'm' not in cfg.model:
        return
    gpus, batch = map(int, re.search(r'_(\d+)xb(\d+)', name).groups())
    steps = cfg.optim_wrapper.get('accumulative_counts', 1)
    assert batch_of_m(cfg) == gpus * batch * steps


def test_the_option_says_what_is_missing(small_config, runner_of):
    cfg = prepare('mocov3_vit-b_64xb64_300e', auto_scale_m=True)
    assert cfg.auto_scale_m == dict(base_batch_size=4096, enable=True)
    cfg = prepare('demo/mocov2_digits', auto_scale_m=True, auto_scale_lr=True)
    assert cfg.auto_scale_m == dict(base_batch_size=128, enable=True)
    cfg = small_config(**{'auto_scale_lr.enable': True})
    with pytest.raises(ValueError, match='which batch its m is meant for'):
        prepare(cfg, auto_scale_m=True)
    cfg = small_config(**SCALED)
    cfg.model.dictionary = dict(type='InBatch', key_grad=True)
    with pytest.raises(ValueError, match='no key encoder'):
        runner_of(cfg).train()
