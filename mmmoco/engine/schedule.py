"""The schedules of a run: held against its length, said, and moved.

A schedule states its end by itself, the loop states the length of the run,
and nothing in mmengine compares them. Here they are compared, and where they
differ the schedule is fitted or the run is refused. What a schedule does is
found by running it on an optimizer that stands in for the real one: that
serves every kind of schedule.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.optim import OptimWrapperDict
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.runner import EpochBasedTrainLoop, Runner

from mmmoco.private_names import begin_steps, steps_of
from mmmoco.registry import PARAM_SCHEDULERS as OURS
from mmmoco.registry import bare_type

from .screen import SETTING

#: mmengine's end of a schedule that has none.
_WITHOUT_END = 10**9
#: Kinds that leave the rate where it is when they end.
_HOLDING = ('Linear', 'Constant', 'Warmup')
#: What of a schedule's state says how far it is, not what it is.
_MOVING = {
    'optimizer',
    'base_values',
    'last_step',
    'verbose',
    '_global_step',
    '_last_value',
}


@dataclass(frozen=True)
class Length:
    """How long a run is.

    Attributes:
        iterations: Of the whole run.
        epoch: Iterations of an epoch.
        by_epoch: Whether the loop counts epochs.
    """

    iterations: int
    epoch: int
    by_epoch: bool

    @classmethod
    def of(cls, runner: Runner) -> 'Length':
        """Return that of a runner whose loop is built."""
        loop = runner.train_loop
        return cls(
            loop.max_iters,
            # None, where an endless sampler fills a batch by several rounds.
            max(1, len(loop.dataloader)),
            isinstance(loop, EpochBasedTrainLoop),
        )

    def unit(self, config: dict[str, Any]) -> int:
        """Return the iterations of one step of a schedule's numbers."""
        return self.epoch if config.get('by_epoch', True) else 1

    def said(self, iterations: float) -> str:
        """Name a point of the run as its loop counts."""
        if self.by_epoch:
            return f'epoch {iterations / self.epoch:g}'
        return f'iteration {iterations:g}'


# What the configs say


def end_of(config: dict[str, Any]) -> float | None:
    """Return the step at which a schedule is done, None if it says none."""
    steps = config.get('T_max') or config.get('total_steps')
    steps = steps or sum(config.get('periods') or ())
    if steps:
        return (config.get('begin') or 0) + steps
    end = config.get('end')
    if end is not None and end < _WITHOUT_END:
        return end
    return max(config.get('milestones') or (), default=None)


def reach(configs: Sequence[dict[str, Any]], length: Length) -> float | None:
    """Return the iteration at which the schedules are done together.

    Those that hold the rate when they end, such as a warm-up, and milestones
    without an end only tell if they lie beyond the run.
    """
    found = []
    for config in configs:
        end = end_of(config)
        if end is None:
            continue
        at = end * length.unit(config)
        open_end = bare_type(config).startswith(_HOLDING) or (
            'milestones' in config and config.get('end') is None
        )
        if not open_end or at > length.iterations:
            found.append(at)
    return max(found, default=None)


def mismatch(configs: Sequence[dict[str, Any]], length: Length) -> str | None:
    """Say how the schedules miss the end of the run by more than an epoch."""
    for config in configs:
        per_iteration = config.get('convert_to_iter_based')
        if config.get('by_epoch', True) and not (
            per_iteration or length.by_epoch
        ):
            return (
                f'{bare_type(config)} counts epochs, which an iteration-based '
                'run does not: it would never move'
            )
    at = reach(configs, length)
    if at is None or abs(at - length.iterations) <= length.epoch:
        return None
    return _two_ends(at, length)


def near_miss(configs: Sequence[dict[str, Any]], length: Length) -> str | None:
    """Say how they miss it by less: by more than a step, or by being cut."""
    at = reach(configs, length)
    step = max(map(length.unit, configs), default=1)
    # Of epochs an iteration-based run may end in the middle.
    beyond = 0 if length.by_epoch or step == 1 else step
    if at is None or -step <= at - length.iterations <= beyond:
        return None
    return _two_ends(at, length)


def _two_ends(at: float, length: Length) -> str:
    return (
        f'the schedule ends at {length.said(at)}, the run at '
        f'{length.said(length.iterations)}'
    )


def fit(
    configs: Sequence[dict[str, Any]], length: Length
) -> list[dict[str, Any]]:
    """Return the schedules, stretched or compressed to the run.

    All parts are scaled by one factor, warm-ups too. Schedules per iteration
    come out in iterations, so that nothing is rounded to epochs.
    """
    at = reach(configs, length)
    factor = length.iterations / at if at else 1.0
    return [_scaled(config, factor, length) for config in configs]


def _scaled(
    config: dict[str, Any], factor: float, length: Length
) -> dict[str, Any]:
    config = copy.deepcopy(dict(config))
    per_epoch = config.get('by_epoch', True)
    convert = config.pop('convert_to_iter_based', False)
    if per_epoch and (convert or not length.by_epoch):
        factor *= length.epoch
        config['by_epoch'] = False

    def scaled(value: float, least: int = 0) -> int:
        return max(least, round(value * factor))

    for name in ('T_max', 'total_iters', 'total_steps', 'step_size'):
        if config.get(name):
            config[name] = scaled(config[name], 1)
    for name in ('milestones', 'periods'):
        if config.get(name):
            config[name] = [scaled(value, 1) for value in config[name]]
    if config.get('begin'):
        config['begin'] = scaled(config['begin'])
    end = config.get('end')
    if end is not None and end < _WITHOUT_END:
        # A schedule of mmengine needs two steps.
        config['end'] = scaled(end, (config.get('begin') or 0) + 2)
    return config


# What they do


class Trial:
    """Schedules, run on their own from the first iteration on.

    Args:
        configs: The schedules.
        groups: Of the real optimizer; their ``initial_`` values count.
        length: Of the run.
    """

    def __init__(
        self,
        configs: Sequence[dict[str, Any]],
        groups: Sequence[dict[str, Any]],
        length: Length,
    ) -> None:
        self.length = length
        settings = [_as_started(group) for group in groups]
        keys = [repr(sorted(entry.items())) for entry in settings]
        distinct = list(dict.fromkeys(keys))
        #: Which of the groups here stands for each of the real ones.
        self.index = [distinct.index(key) for key in keys]
        # Never stepped: only the settings of its groups are used.
        self.optimizer = torch.optim.SGD(
            [
                {**settings[keys.index(key)], 'params': [torch.zeros(1)]}
                for key in distinct
            ]
        )
        parts = dict(optimizer=self.optimizer, epoch_length=length.epoch)
        self.schedulers = [
            PARAM_SCHEDULERS.build(dict(config), default_args=parts)
            for config in configs
        ]
        begin_steps(self.optimizer)
        self.iteration = self.epoch = 0

    def rate(self) -> float:
        """Return the highest learning rate of all groups."""
        groups = self.optimizer.param_groups
        return max(float(group.get('lr', 0.0)) for group in groups)

    def go(self, iteration: int, epochs: int | None = None) -> float:
        """Go on to an iteration; return the highest rate on the way.

        Args:
            iteration: Counted from 0.
            epochs: How many were ended by then; None: all that could be.
        """
        by_iteration = [s for s in self.schedulers if not s.by_epoch]
        by_epoch = [s for s in self.schedulers if s.by_epoch]
        length, highest = self.length.epoch, self.rate()
        most = iteration // length if epochs is None else epochs
        if not self.length.by_epoch:
            most = 0
        while self.iteration < iteration:
            # Without schedules per iteration, from epoch to epoch.
            stride = 1 if by_iteration else length - self.iteration % length
            self.iteration = min(self.iteration + stride, iteration)
            for scheduler in by_iteration:
                scheduler.step()
            if self.iteration % length == 0 and self.epoch < most:
                self.epoch += 1
                for scheduler in by_epoch:
                    scheduler.step()
            highest = max(highest, self.rate())
        return highest

    def states(self) -> list[dict[str, Any]]:
        """Return those of the schedulers, for the groups of the real one."""
        states = []
        for scheduler in self.schedulers:
            state = dict(scheduler.state_dict())
            for name in ('base_values', '_last_value'):
                state[name] = [state[name][i] for i in self.index]
            states.append(state)
        return states


def _as_started(group: dict[str, Any]) -> dict[str, Any]:
    kept = {name: group[name] for name in ('lr', 'momentum') if name in group}
    initial = {k: v for k, v in group.items() if k.startswith('initial_')}
    started = {k.removeprefix('initial_'): v for k, v in initial.items()}
    return kept | started | initial


# The schedules of one run


class Schedule:
    """The schedules of a run, from its config.

    Args:
        configs: Of the schedules.
        length: Of the run.
        way: ``'keep'`` them as they are, ``'fit'`` them to the run, or None:
            they have to fit.

    Raises:
        ValueError: If there is no such way.
    """

    def __init__(
        self,
        configs: Sequence[dict[str, Any]],
        length: Length,
        way: str | None,
    ) -> None:
        if way not in (None, 'keep', 'fit'):
            raise ValueError(
                f"schedule={way!r} is unknown; use 'keep' (as the config has "
                "it), 'fit' (stretched to the length of the run), or None "
                '(it has to fit).'
            )
        self.length, self.way = length, way
        configs = fit(configs, length) if way == 'fit' else list(configs)
        self.wrong = None if way == 'keep' else mismatch(configs, length)
        self.near = None if way else near_miss(configs, length)
        self.configs = [
            # The end that mmengine gives those that state none.
            {'end': -(-length.iterations // length.unit(config)), **config}
            for config in configs
        ]

    @classmethod
    def of(cls, runner: Runner, configs: Any) -> 'Schedule | None':
        """Return that of a runner; None if it is no list of configs.

        That is so for schedules that are built already, for several
        optimizers, and for those that wait for a metric.
        """
        if isinstance(configs, dict) and 'type' in configs:
            configs = [configs]
        if (
            not isinstance(configs, list | tuple)
            or not all(isinstance(c, dict) and 'type' in c for c in configs)
            or any('Plateau' in bare_type(c) for c in configs)
            or isinstance(runner.optim_wrapper, OptimWrapperDict)
        ):
            return None
        way = runner.cfg.get('schedule')
        return cls(configs, Length.of(runner), way)

    def announce(self, runner: Runner, resumed: bool) -> None:
        """Log first, highest and last rate; hold the end against the run.

        Raises:
            ValueError: If a new pre-training of ours would end before its
                schedule, or after it, and nobody said that this is meant.
        """
        groups = runner.optim_wrapper.param_groups
        trial = Trial(self.configs, groups, self.length)
        first = trial.rate()
        highest = trial.go(self.length.iterations - 1)
        last = trial.rate()
        rates = f'{first:.4g} first, {highest:.4g} at most, {last:.4g} last'
        runner.logger.info(
            f'Learning rate over {self.length.said(self.length.iterations)}'
            f': {rates}' + (' (fitted).' if self.way == 'fit' else '.'),
            extra=SETTING,
        )
        missed = self.wrong or self.near
        if missed is None:
            return
        text = (
            f'{missed[0].upper()}{missed[1:]} (learning rate '
            f"{rates}). schedule='fit' in the config, or --schedule fit, "
            "stretches it to the run; 'keep' trains so all the same."
        )
        ours = runner.cfg.get('default_scope') == 'mmmoco'
        if resumed or not ours or not self.wrong:
            runner.logger.warning(text)
        else:
            raise ValueError(text)

    def as_begun(
        self, runner: Runner, saved: list[Any]
    ) -> list[tuple[str, dict[str, Any]]] | None:
        """Return kinds and states that a run of an earlier version has.

        Args:
            runner: Whose schedules are built.
            saved: The states in its checkpoint; not trusted.

        Returns:
            None if the schedules are those of this version.
        """
        if len(saved) != len(self.configs):
            return None
        configs = list(map(_as_begun, self.configs, saved))
        if configs == self.configs:
            return None
        groups = runner.optim_wrapper.param_groups
        states = Trial(configs, groups, self.length).states()
        return [
            (bare_type(c), s) for c, s in zip(configs, states, strict=True)
        ]

    def go_on(self, runner: Runner) -> None:
        """Let the config's schedule count in a run that was resumed.

        The states that were just loaded stay if they are of the same
        schedule; else it is moved to the iteration that was reached. A run
        that began with what an earlier version had keeps that.
        """
        loaded = runner.param_schedulers
        groups = runner.optim_wrapper.param_groups
        loop = runner.train_loop
        states = [vars(scheduler) for scheduler in loaded]
        configs = list(map(_as_begun, self.configs, states))
        older = configs != self.configs
        trial = Trial(configs, groups, self.length)
        changed = [
            f'{bare_type(config)}.{name} {before.get(name)} before, {now} now'
            for config, ours, before in zip(
                configs, trial.schedulers, states, strict=True
            )
            for name, now in vars(ours).items()
            if name not in _MOVING and before.get(name) != now
        ]
        epochs = loop.epoch if self.length.by_epoch else 0
        moved = any(
            steps_of(s) != (epochs if s.by_epoch else loop.iter)
            for s in loaded
        )
        if older:
            runner.logger.warning(
                'This run was begun with an earlier version, whose schedule '
                'differs by one step (the warm-up of v3 was over one '
                'iteration early, the CIFAR-10 recipe counted epochs from '
                '0): it goes on with the schedule that it began with.'
            )
        if not (older or changed or moved):
            return
        before = max(group['lr'] for group in groups)
        trial.go(loop.iter, epochs)
        self.configs = configs
        runner.param_schedulers = runner.build_param_scheduler(configs)
        for scheduler, state in zip(
            runner.param_schedulers, trial.states(), strict=True
        ):
            scheduler.load_state_dict(state)
            for group, index in zip(groups, trial.index, strict=True):
                value = trial.optimizer.param_groups[index]
                group[scheduler.param_name] = value[scheduler.param_name]
        if changed or moved:
            runner.logger.warning(
                "The schedule of the config counts, not the checkpoint's"
                f'{": " if changed else ""}{"; ".join(changed)}. At '
                f'iteration {loop.iter} the '
                f'learning rate is {max(g["lr"] for g in groups):.4g} '
                f'instead of {before:.4g}.'
            )


def _as_begun(config: dict[str, Any], state: Any) -> dict[str, Any]:
    """Return what stood in the place of a schedule when a run began."""
    kind = OURS.get(bare_type(config))
    sign = getattr(kind, 'sign', None)
    if sign is None or not isinstance(state, dict) or sign not in state:
        return config
    older = {**config, **kind.before}
    factor = state.get('start_factor')
    if isinstance(factor, float) and 0 < factor <= 1:
        older['start_factor'] = factor
    return older
