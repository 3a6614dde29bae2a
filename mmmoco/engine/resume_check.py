"""Whether a checkpoint is the state of a run like this one.

All of it is checked before any of it is used: what mmengine would take
without a word (a negative iteration, a schedule with a text for its step)
ends with one line that names the place.
"""

import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor, nn

from mmmoco.engine.schedule import Schedule
from mmmoco.private_names import accumulation_of

from .bare_model import two_phase_model
from .checkpoint_io import CheckpointError, load_into, require_resumable
from .checkpoint_io.restricted import are_series
from .reshard import describe_processes

#: mmengine's end of a schedule without one; no run has more iterations.
MOST = 10**9
#: Of a rate, a factor, a penalty.
LARGEST = 1e6
#: Of a schedule: as many numbers as its config says, which may have changed.
_PERIODS = ('periods', 'cumulative_periods', 'restart_weights')
#: Of an optimizer: at most 1 each.
_SHARES = ('momentum', 'dampening', 'alpha', 'betas')

_MEND = (
    'Resume from an older checkpoint, or take the weights alone: --load-from.'
)


class _UnfitError(ValueError):
    """What is wrong, without the file and the mend."""


def check_state(
    runner: Runner, checkpoint: dict[str, Any], source: str
) -> None:
    """Hold what is no tensor against the run that resumes.

    Args:
        runner: Ready to train.
        checkpoint: What the file holds; nothing of it is used yet.
        source: Name of the file.

    Raises:
        CheckpointError: In one line, naming the first place that is wrong.
    """
    require_resumable(checkpoint, source)
    with _refusing(source):
        _check_meta(runner, checkpoint['meta'])
        _check_hub(checkpoint['message_hub'], checkpoint['meta'])


def check_optimizers(
    runner: Runner, checkpoint: dict[str, Any], source: str
) -> None:
    """Hold optimizers and schedules against those of the run.

    Args:
        runner: Ready to train, with a model that the weights fit.
        checkpoint: What the file holds.
        source: Name of the file.

    Raises:
        CheckpointError: In one line, naming the first place that is wrong.
    """
    with _refusing(source):
        _check_optimizers(runner, checkpoint)
        _check_schedules(runner, checkpoint)


@contextmanager
def _refusing(source: str) -> Iterator[None]:
    try:
        yield
    except _UnfitError as error:
        raise CheckpointError(
            f'{source} cannot be resumed from: {error}. {_MEND}'
        ) from None


def fit_state(
    model: nn.Module, weights: Mapping[str, Tensor], source: str
) -> None:
    """Load the weights of a run: all of them, no others, all finite.

    Raises:
        CheckpointError: In one line, with the numbers.
    """
    own = model.state_dict()
    with _refusing(source):
        for name, value in weights.items():
            if isinstance(own.get(name), Tensor):
                _check_weight(name, value, own[name])
    load_into(
        model,
        weights,
        source,
        mend='A run resumes with the model that it began with. Set the config '
        'back, or take the weights alone: --load-from.',
    )


def _check_weight(name: str, value: Tensor, mine: Tensor) -> None:
    floating = value.is_floating_point() and mine.is_floating_point()
    if value.dtype != mine.dtype and not floating:
        raise _UnfitError(
            f'{name} is {value.dtype}, in this model {mine.dtype}'
        )
    if not _finite(value) and _finite(mine):
        count = int((~torch.isfinite(value)).sum())
        raise _UnfitError(
            f'{count} of {value.numel()} values of {name} are not finite'
        )


# meta


def _check_meta(runner: Runner, meta: Mapping[str, Any]) -> None:
    epoch = _whole(meta['epoch'], 'meta.epoch')
    done = _whole(meta['iter'], 'meta.iter')
    _whole(meta.get('seed'), 'meta.seed', high=2**32 - 1)
    _number(meta.get('m_power', 1.0), 'meta.m_power', low=1 / LARGEST)
    processes = meta.get('processes')  # Older versions did not write it.
    if processes is None:
        return
    _require(processes, Mapping, 'meta.processes', 'numbers by name')
    for name, now in describe_processes(runner).items():
        low = int(now > 0 and name != 'epoch_length')
        _whole(processes.get(name), f'meta.processes.{name}', low=low)
    length = processes['epoch_length']
    by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
    if length and by_epoch and not 0 <= done - epoch * length <= length:
        raise _UnfitError(
            f'meta.epoch={epoch} and meta.iter={done} do not belong together '
            f'in a run by epochs of {length} iterations'
        )


# message_hub


def _check_hub(hub: Any, meta: Mapping[str, Any]) -> None:
    _dictionary(hub, 'message_hub')
    for name in ('log_scalars', 'runtime_info', 'resumed_keys'):
        _dictionary(hub.get(name), f'message_hub.{name}')
        for key in hub[name]:
            _require(key, str, f'a name in message_hub.{name}', 'text')
    for name, value in hub['log_scalars'].items():
        _check_history(value, f'message_hub.log_scalars.{name}')
    for name, value in hub['resumed_keys'].items():
        place = f'message_hub.resumed_keys.{name}'
        _require(value, bool, place, 'True or False')
    info = hub['runtime_info']
    for name in ('iter', 'epoch', 'max_iters', 'max_epochs'):
        if name in info:
            _whole(info[name], f'message_hub.runtime_info.{name}')
    for name in ('iter', 'epoch'):
        # Written before and after the same iteration.
        if name in info and not 0 <= meta[name] - info[name] <= 1:
            raise _UnfitError(
                f'meta.{name}={meta[name]} does not belong to '
                f'message_hub.runtime_info.{name}={info[name]}'
            )
    place = 'message_hub.runtime_info.kept_checkpoints'
    kept = info.get('kept_checkpoints', [])
    _require(kept, list | tuple, place, 'a list of names')
    for name in kept:
        _require(name, str, f'a name in {place}', 'text')


def _check_history(value: Any, place: str) -> None:
    _require(value, HistoryBuffer, place, 'a history')
    if not (are_series(*value.data) and isinstance(value.max_length, int)):
        _refuse(value, place, 'a history of numbers')


# optimizer


def _check_optimizers(runner: Runner, checkpoint: dict[str, Any]) -> None:
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    wrapper, state = runner.optim_wrapper, checkpoint['optimizer']
    _dictionary(state, 'optimizer')
    strict = two_phase_model(runner) is not None
    done = checkpoint['meta']['iter']
    if isinstance(wrapper, OptimWrapperDict):
        for name, one in wrapper.optim_wrappers.items():
            place = f'optimizer.{name}'
            _check_optimizer(one, state.get(name), place, done, strict)
    elif isinstance(wrapper, OptimWrapper):
        _check_optimizer(wrapper, state, 'optimizer', done, strict)


def _check_optimizer(
    wrapper: OptimWrapper, state: Any, place: str, done: int, strict: bool
) -> None:
    _dictionary(state, place)
    own = wrapper.state_dict()
    for name in ('param_groups', 'state'):
        if name not in state:
            raise _UnfitError(f'{place}.{name} is missing')
    groups = state['param_groups']
    _require(groups, list, f'{place}.param_groups', 'a list')
    if len(groups) != len(own['param_groups']):
        raise _UnfitError(
            f'{place}.param_groups has {len(groups)} groups of parameters, '
            f'this run {len(own["param_groups"])}'
        )
    for number, (group, mine) in enumerate(
        zip(groups, own['param_groups'], strict=True)
    ):
        _check_group(group, mine, f'{place}.param_groups[{number}]')
    for name, value in own.items():
        if name not in ('param_groups', 'state') and name in state:
            _like(state[name], value, f'{place}.{name}')
    steps = done // accumulation_of(wrapper) - state.get('skipped_steps', 0)
    _check_moments(wrapper, state['state'], f'{place}.state', steps, strict)


def _check_group(group: Any, mine: dict[str, Any], place: str) -> None:
    _require(group, dict, place, 'a dictionary')
    for name, value in mine.items():
        where, found = f'{place}.{name}', group.get(name)
        if name == 'params':
            if found != value:
                count = len(found) if isinstance(found, list) else found
                raise _UnfitError(
                    f'{where} names {count} parameters, or others than the '
                    f'{len(value)} of this run'
                )
        elif value is None or isinstance(value, bool):
            # A way to compute, that of this run. Which there are depends on
            # torch's version.
            _require(found, bool | None, where, 'True or False')
            group[name] = value
        elif name not in group:
            raise _UnfitError(f'{where} is missing')
        else:
            _like(found, value, where)
            if name in _SHARES:
                shares = found if isinstance(found, list | tuple) else [found]
                if max(shares) > 1:
                    _refuse(found, where, 'at most 1')


def _check_moments(
    wrapper: OptimWrapper, state: Any, place: str, steps: int, strict: bool
) -> None:
    _dictionary(state, place)
    optimizer = wrapper.optimizer
    frozen = {id(p) for p in getattr(wrapper, 'frozen', ())}
    known: set[int] = set()
    lacking = []
    for group in optimizer.param_groups:
        kept = _kept_by(optimizer, group)
        for parameter in group['params']:
            number = len(known)
            known.add(number)
            where = f'{place}[{number}]'
            if number in state:
                _check_moment(state[number], kept, parameter, where)
            elif (
                kept
                and parameter.requires_grad
                and id(parameter) not in (frozen)
            ):
                lacking.append(number)
    strangers = [number for number in state if number not in known]
    if strangers:
        raise _UnfitError(
            f'{place} knows a parameter {strangers[0]!r}; this run has '
            f'{len(known)}'
        )
    # Other libraries have parameters that their losses do not reach.
    if steps > 0 and lacking and (strict or not state):
        raise _UnfitError(
            f'{place} lacks {len(lacking)} of {len(known)} parameters, the '
            f'first is number {lacking[0]}'
        )


def _check_moment(
    moment: Any, kept: dict[str, Any] | None, parameter: Tensor, place: str
) -> None:
    _dictionary(moment, place)
    for name, value in moment.items():
        where = f'{place}.{name}'
        if isinstance(value, Tensor):
            if not _finite(value):
                raise _UnfitError(f'{where} has values that are not finite')
            if str(name).endswith('_sq') and bool((value < 0).any()):
                raise _UnfitError(f'{where} has negative squares')
    for name, mine in (kept or {}).items():
        where = f'{place}.{name}'
        if name not in moment:
            raise _UnfitError(f'{where} is missing')
        value = moment[name]
        if isinstance(mine, Tensor) and mine.dim():
            _require(value, Tensor, where, 'a tensor')
            if value.shape != parameter.shape:
                raise _UnfitError(
                    f'{where} has the shape {tuple(value.shape)}, its '
                    f'parameter {tuple(parameter.shape)}'
                )
            if not value.is_floating_point():
                _refuse(value.dtype, where, 'of floating point')
        elif mine is not None:  # A count of steps.
            if isinstance(value, Tensor) and value.numel() == 1:
                value = value.item()
            _number(value, where, high=MOST)


def _kept_by(
    optimizer: torch.optim.Optimizer, group: dict[str, Any]
) -> dict[str, Any] | None:
    """See what the optimizer keeps for a parameter, on one of its kind."""
    device = group['params'][0].device if group['params'] else 'cpu'
    parameter = nn.Parameter(torch.zeros(2, 3, device=device))
    parameter.grad = torch.zeros_like(parameter)
    known = inspect.signature(type(optimizer)).parameters
    settings = {name: v for name, v in group.items() if name in known}
    settings['params'] = [parameter]
    try:
        twin = type(optimizer)(**settings)
        twin.step()
    except (TypeError, RuntimeError, ValueError):
        return None  # One of another library that needs more than this.
    kept: dict[str, Any] = twin.state[parameter]
    shapes = {(2, 3), ()}
    tensors = [v for v in kept.values() if isinstance(v, Tensor)]
    whole = all(tuple(value.shape) in shapes for value in tensors)
    return kept if whole else None


# param_schedulers


def _check_schedules(runner: Runner, checkpoint: dict[str, Any]) -> None:
    if runner.param_schedulers is None:
        return
    runner.param_schedulers = runner.build_param_scheduler(
        runner.param_schedulers
    )
    place = 'param_schedulers'
    saved: Any = checkpoint.get(place)
    _require(saved, list | dict, place, 'a list of schedules')
    own = runner.param_schedulers
    if isinstance(own, dict):
        if not isinstance(saved, dict) or saved.keys() != own.keys():
            raise _UnfitError(f'{place} is not of the optimizers {list(own)}')
        for name in own:
            states = [(type(s).__name__, s.state_dict()) for s in own[name]]
            _check_list(saved[name], states, f'{place}.{name}')
    else:
        plan = getattr(runner, '_schedule', None)
        states = [(type(s).__name__, s.state_dict()) for s in own]
        if isinstance(plan, Schedule) and isinstance(saved, list):
            # An earlier version had others in the place of some.
            states = plan.as_begun(runner, saved) or states
        _check_list(saved, states, place)
        if two_phase_model(runner) is not None:
            groups = checkpoint['optimizer']['param_groups']
            _check_values(list(saved), groups)


def _check_list(
    saved: Any, own: list[tuple[str, dict[str, Any]]], place: str
) -> None:
    _require(saved, list, place, 'a list of schedules')
    if len(saved) != len(own):
        raise _UnfitError(
            f'{place} has {len(saved)} schedules, this run has {len(own)}'
        )
    for number, (theirs, (kind, mine)) in enumerate(
        zip(saved, own, strict=True)
    ):
        where = f'{place}[{number}]'
        _require(theirs, dict, where, 'a dictionary')
        for name in [*mine, *theirs]:
            spot = f'{where}.{name}'
            if name not in theirs:
                raise _UnfitError(f'{spot} is missing for {kind}')
            if name not in mine:
                raise _UnfitError(f'{spot} is unknown to {kind}')
            if name in _PERIODS:
                _require(theirs[name], list | tuple, spot, 'a list of numbers')
                for step, one in enumerate(theirs[name]):
                    _number(one, f'{spot}[{step}]')
            else:
                _like(theirs[name], mine[name], spot, MOST)
            # A file has dictionaries only; this is a Counter of milestones.
            if isinstance(mine[name], Mapping):
                theirs[name] = type(mine[name])(theirs[name])


def _check_values(
    schedules: list[dict[str, Any]], groups: list[dict[str, Any]]
) -> None:
    """See that the optimizer has what the last schedule gave it."""
    last = {each['param_name']: each['_last_value'] for each in schedules}
    for name, values in last.items():
        for number, (group, value) in enumerate(
            zip(groups, values, strict=False)
        ):
            if name in group and not math.isclose(
                group[name], value, rel_tol=1e-6, abs_tol=1e-12
            ):
                raise _UnfitError(
                    f'optimizer.param_groups[{number}].{name} is '
                    f'{group[name]}, but param_schedulers ends with {value}'
                )


# Kinds


def _like(value: Any, mine: Any, place: str, high: float = LARGEST) -> None:
    """Refuse a value of another kind than that of this run."""
    if mine is None or isinstance(mine, bool):
        if type(value) is not type(mine):
            _refuse(value, place, f'such as {mine}')
    elif isinstance(mine, int):
        _number(value, place, low=-1, high=max(high, MOST))
    elif isinstance(mine, float):
        _number(value, place, high=LARGEST)
    elif isinstance(mine, str):
        if value != mine:
            _refuse(value, place, repr(mine))
    elif isinstance(mine, Tensor):
        if not (isinstance(value, Tensor) and value.shape == mine.shape):
            _refuse(value, place, f'a tensor of shape {tuple(mine.shape)}')
        if not _finite(value):
            raise _UnfitError(f'{place} has values that are not finite')
    elif isinstance(mine, Mapping):
        _dictionary(value, place)
        if mine and all(isinstance(name, int) for name in mine):
            for step, count in value.items():  # Milestones, which may move.
                _whole(step, f'a step of {place}')
                _whole(count, f'{place}.{step}')
            return
        if value.keys() != mine.keys():
            raise _UnfitError(
                f'{place} has {list(value)} where this run has {list(mine)}'
            )
        for name, one in value.items():
            _like(one, mine[name], f'{place}.{name}', high)
    elif isinstance(mine, list | tuple):
        if not isinstance(value, list | tuple) or len(value) != len(mine):
            _refuse(value, place, f'a list of {len(mine)} values')
        for number, (one, own) in enumerate(zip(value, mine, strict=True)):
            _like(one, own, f'{place}[{number}]', high)


def _whole(value: Any, place: str, low: int = 0, high: int = MOST) -> int:
    good = isinstance(value, int) and not isinstance(value, bool)
    if not (good and low <= value <= high):
        _refuse(value, place, f'a whole number from {low} to {high}')
    return int(value)


def _number(
    value: Any, place: str, low: float = 0.0, high: float = LARGEST
) -> None:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not (good and math.isfinite(value) and low <= value <= high):
        _refuse(value, place, f'a number from {low:g} to {high:g}')


def _finite(value: Tensor) -> bool:
    return not value.is_floating_point() or bool(torch.isfinite(value).all())


def _require(value: Any, kind: Any, place: str, wanted: str) -> None:
    if not isinstance(value, kind):
        _refuse(value, place, wanted)


def _dictionary(value: Any, place: str) -> None:
    _require(value, Mapping, place, 'a dictionary')


def _refuse(value: Any, place: str, wanted: str) -> NoReturn:
    shown = repr(value)
    if len(shown) > 60 or isinstance(value, Tensor):
        shown = f'a {type(value).__name__}'
    raise _UnfitError(f'{place} is {shown}, not {wanted}')
