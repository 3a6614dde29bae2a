"""m for another batch than it is meant for.

Where the batch is κ times as large, and the learning rate with it, m becomes
m^κ: the key encoder then averages over as many images as before (`How to
scale your EMA <https://arxiv.org/abs/2307.13813>`_).
"""

from collections.abc import Mapping
from typing import Any

from mmengine.runner import Runner

from mmmoco.two_phase import TwoPhaseModel

from .bare_model import two_phase_model
from .screen import SETTING

OPTION = '--auto-scale-m'


def batch_of_m(cfg: Mapping[str, Any]) -> int:
    """Return the effective batch that the m of a config is meant for.

    Raises:
        ValueError: If the config does not say.
    """
    base = (cfg.get('auto_scale_m') or {}).get('base_batch_size')
    of_lr = cfg.get('auto_scale_lr') or {}
    if not base and not of_lr.get('enable'):
        # Then the config states the lr of its own batch.
        base = of_lr.get('base_batch_size')
    if not base:
        raise ValueError(
            f'{OPTION}: the config does not say which batch its m is meant '
            'for; add auto_scale_m=dict(base_batch_size=256).'
        )
    return int(base)


def scale_momentum(runner: Runner, batch: int) -> None:
    """Let m be that of the effective batch, if the config wants it.

    Raises:
        ValueError: If there is no m, or no batch that it is meant for.
    """
    if not _enabled(runner):
        return
    model = two_phase_model(runner)
    if model is None or model.key_encoder is None:
        raise ValueError(
            f'{OPTION}: {type(runner.model).__name__} has no key encoder '
            'that m moves; leave it out.'
        )
    base = batch_of_m(runner.cfg)
    model.m_power = batch / base
    text = f'm for batch {base} scaled to {batch}: {_shown(model)}.'
    if batch != base and not (runner.auto_scale_lr or {}).get('enable'):
        text += ' The rule scales the lr too: --auto-scale-lr.'
    runner.logger.info(text, extra=SETTING)


def go_on(runner: Runner, meta: Mapping[str, Any], factor: float) -> None:
    """Go on with the m of a checkpoint.

    Args:
        runner: Just resumed.
        meta: Of the checkpoint, checked.
        factor: How many times as large the effective batch is now.
    """
    model = two_phase_model(runner)
    if model is None:
        return
    wanted, model.m_power = model.m_power, float(meta.get('m_power', 1.0))
    follows = _enabled(runner) and factor != 1.0
    if follows:
        model.m_power *= factor
    if follows or model.m_power != wanted:
        how = f'times {factor:g}' if follows else 'as the checkpoint has it'
        runner.logger.warning(f'm: {_shown(model)}, the power {how}.')


def _enabled(runner: Runner) -> bool:
    return bool((runner.cfg.get('auto_scale_m') or {}).get('enable'))


def _shown(model: TwoPhaseModel) -> str:
    m, power = model.momentum_at(0.0), model.m_power
    text = f'{m:g}^{power:g} = {m**power:.6g}'
    rises = model.momentum_at(1.0) != m
    return f'{text} at the start, every value likewise' if rises else text
