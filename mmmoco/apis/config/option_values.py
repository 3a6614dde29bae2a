"""Values of a config that make no sense, said before anything is built.

Two rules for all: an option keeps the kind of the value that it replaces,
and what counts or measures something lies in a range. Whatever else cannot
be built is caught by `mmmoco.engine.endings.building`.
"""

import math
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any

import torch
from mmengine.config import Config

from mmmoco.apis.foreign_flags import meaning_of
from mmmoco.engine.changes import READ
from mmmoco.engine.signatures import meant_by
from mmmoco.messages import few, shortened
from mmmoco.registry import value_at
from mmmoco.system import memory

#: What is wanted instead of a value; None: it does.
Rule = Callable[[Any], str | None]


def _number(
    least: float,
    most: float = math.inf,
    above: bool = False,
    kind: Any = int | float,
    others: tuple[int, ...] = (),
) -> Rule:
    name = 'a whole number' if kind is int else 'a number'
    span = f'above {least:g}' if above else f'from {least:g}'
    end = f' to {most:.10g}' if most < math.inf else '' if above else ' on'
    more = ''.join(f', or {other}' for other in others)

    def wrong(value: Any) -> str | None:
        good = isinstance(value, kind) and not isinstance(value, bool)
        inside = good and least <= value <= most and value < math.inf
        if (inside and not (above and value == least)) or (
            good and value in others
        ):
            return None
        return f'{name} {span}{end}{more}'

    return wrong


def _whole(least: int, *others: int, most: float = math.inf) -> Rule:
    return _number(least, most, kind=int, others=others)


def _workers(value: Any) -> str | None:
    wanted = None if value == 'auto' else _whole(0)(value)
    return wanted and f"{wanted}, or 'auto'"


def _kind(name: str, *kinds: type) -> Rule:
    return lambda value: None if isinstance(value, kinds) else name


def _each(rule: Rule) -> Rule:
    def wrong(value: Any) -> str | None:
        many = value if isinstance(value, list | tuple) else [value]
        return next(filter(None, map(rule, many)), None)

    return wrong


#: Place in a config (a pattern) -> what is wrong with a value there.
RANGES: dict[str, Rule] = {
    **dict.fromkeys(
        (
            *('model', 'model.backbone', 'model.dictionary', 'model.loss'),
            *('default_hooks', 'optim_wrapper', 'optim_wrapper.optimizer'),
            *('train_cfg', 'randomness', 'knn', '*_dataloader.dataset'),
        ),
        _kind('a dict', dict),
    ),
    **{
        f'*_dataloader.{name}': _kind('True or False', bool)
        for name in ('drop_last', 'shuffle', 'persistent_workers')
    },
    'default_scope': _kind('a name', str),
    'custom_hooks': _kind('a list', list, tuple),
    'work_dir': _kind('a path', str),
    '*_dataloader': _kind('a dict', dict, list),
    '*_dataloader.batch_size': _whole(1),
    '*_dataloader.num_workers': _workers,
    'knn.*.num_workers': _workers,
    'custom_hooks.*.*.num_workers': _workers,
    '*_dataloader.dataset.num_scenes': _whole(1),
    'knn.*.dataset.num_scenes': _whole(1),
    'default_hooks.checkpoint.interval': _whole(1, -1),
    'default_hooks.checkpoint.max_keep_ckpts': _whole(1, -1),
    'default_hooks.logger.interval': _whole(1),
    'custom_hooks.*.interval': _whole(1, -1),
    'optim_wrapper.optimizer.lr': _number(0),
    'optim_wrapper.optimizer.weight_decay': _number(0),
    'optim_wrapper.optimizer.momentum': _number(0, 1),
    'optim_wrapper.accumulative_counts': _whole(1),
    'train_cfg.max_epochs': _whole(1),
    'train_cfg.max_iters': _whole(1),
    'train_cfg.val_interval': _number(1),  # mmdet has 57300.0
    'param_scheduler.*.T_max': _number(0, above=True),
    'param_scheduler.*.begin': _number(0),
    'param_scheduler.*.end': _number(0, above=True),
    'param_scheduler.*.eta_min': _number(0),
    'log_processor.window_size': _whole(1),
    'model.dictionary.size': _whole(1),
    'model.dictionary.feat_dim': _whole(1),
    'model.dictionary.num_negatives': _whole(1),
    'auto_scale_*.base_batch_size': _whole(1),
    'randomness.seed': _whole(0, most=2**32 - 1),  # numpy's
    'knn.k': _each(_whole(1)),
    'knn.temperature': _each(_number(0, above=True)),
}
_SIZE = 'view_size (crops, network and k-NN together)'
#: What may be None where it stands: the default, or a drawn one.
_OPTIONAL = (
    '*_dataloader',
    'custom_hooks',
    'custom_hooks.*.interval',
    'default_hooks',
    'knn',
    'model.dictionary',
    'model.loss',
    'optim_wrapper',
    'param_scheduler.*',
    'randomness.seed',
    'train_cfg',
)


def check_values(cfg: Config) -> None:
    """Hold every value of a known place against its range.

    Raises:
        ValueError: If one lies outside; names it and what would do.
    """
    for place, value in places(dict(cfg.items())):
        for pattern, wrong in RANGES.items():
            if not _matches(place, pattern):
                continue
            wanted = wrong(value)
            optional = any(_matches(place, p) for p in _OPTIONAL)
            if wanted and not (value is None and optional):
                raise ValueError(
                    f'{place}={_shown(value)}: it has to be {wanted}.'
                )
    model = cfg.get('model') or {}
    if 'momentum' in model and 'dictionary' in model:
        theirs = model['momentum']
        ours = ''
        if isinstance(theirs, float):
            ours = f'; {theirs} is m={1 - theirs:g}'
        raise ValueError(
            f'model.momentum={_shown(theirs)}: here it is called m and is the '
            'weight of the old key parameters, as in the papers (usual: '
            f"0.999). OpenMMLab's momentum is 1 - m{ours}."
        )
    _check_memory(cfg)


def _check_memory(cfg: Config) -> None:
    """Refuse a dictionary that no memory of this machine can hold."""
    place, room = 'model.dictionary', memory()
    size, width = (
        value_at(cfg, f'{place}.{name}') for name in ('size', 'feat_dim')
    )
    if room is None or not (isinstance(size, int) and isinstance(width, int)):
        return
    if torch.cuda.is_available():
        room = max(room, torch.cuda.get_device_properties(0).total_memory)
    if size * width * 4 > room:
        raise ValueError(
            f'model.dictionary.size={size} with feat_dim={width} needs '
            f'{size * width * 4 / 1e9:,.0f} GB of memory; this machine has '
            f'{room / 1e9:,.0f} GB. MoCo has a size of 65536.'
        )


def check_option(cfg: Config, key: str, value: Any) -> None:
    """See that an option has a place, and is of the kind that it replaces.

    Args:
        cfg: Before the option is applied.
        key: Dotted place.
        value: What is to stand there.

    Raises:
        KeyError: If its first part is unknown; says what there is.
        ValueError: If it is of another kind.
    """
    node: Any = dict(cfg.items())
    _check_place(node, key)
    named = key.rpartition('.')[2] in ('type', '_scope_')
    if named and isinstance(value, list | dict):
        raise ValueError(
            f'--cfg-options {key}={_shown(value)}: it has to be a name.'
        )
    for part in key.split('.'):
        if isinstance(node, dict) and part in node:
            node = node[part]
        elif isinstance(node, tuple):
            raise ValueError(
                f'--cfg-options {key}: {_shown(node)} has to be given whole.'
            )
        elif isinstance(node, list) and part.isdigit():
            if int(part) >= len(node):
                raise ValueError(
                    f'--cfg-options {key}: there are {len(node)} entries, '
                    f'the last one is {len(node) - 1}.'
                )
            node = node[int(part)]
        elif isinstance(node, dict) or node is None:
            return  # Something new.
        else:
            raise ValueError(
                f'--cfg-options {key}: there is nothing below {_shown(node)}.'
            )
    wanted = _other_kind(node, value)
    if wanted:
        raise ValueError(
            f'--cfg-options {key}={_shown(value)}: it replaces '
            f'{_shown(node)} and has to be {wanted} too.'
        )


def _check_place(node: dict[str, Any], key: str) -> None:
    """See that the first part of an option is something that is read."""
    first, _, below = key.partition('.')
    if first in READ:
        return
    if first not in node:
        there = ', '.join(sorted(k for k in node if k in READ))
        mend = _mend(node, key) or f'. It has {there}.'
        raise KeyError(
            f'--cfg-options {key}: the config has no {first!r}{mend}'
        )
    named = node[first]
    while isinstance(named, list | tuple) and below:
        # Of a longer list, where its entries have other numbers.
        number, _, below = below.partition('.')
        if not number.isdigit() or int(number) >= len(named):
            break
        named = named[int(number)]
    used = [
        place
        for place, value in places(node)
        if place.split('.')[0] in READ and _made_of(named, value)
    ]
    end = f'.{below}' if below else ''
    there = few([f'{place}{end}' for place in used], 4)
    where = f'Give {there} instead' if used else 'Give what was made of it'
    meanings = [m for m in map(meaning_of, key.split('.')) if m is not None]
    if any(meaning.setting in READ for meaning in meanings):
        where = f'{where}, or {_SIZE}'
    raise KeyError(
        f'--cfg-options {key}: {first!r} is a name that the config was '
        'written with, and has been used already: to change it here changes '
        f'nothing. {where.rstrip(".")}.'
    )


def _made_of(named: Any, value: Any) -> bool:
    """Whether a value of a config was probably made of a named one."""
    if isinstance(named, dict) and isinstance(value, dict):
        shared = [k for k in named if k in value and value[k] == named[k]]
        return bool(named) and len(shared) == len(named)
    if isinstance(named, list | tuple) and isinstance(value, list | tuple):
        return bool(named) and all(part in value for part in named)
    return isinstance(named, str) and named == value


def _mend(node: dict[str, Any], key: str) -> str:
    """Return what an option of an unknown place may mean."""
    first, _, below = key.partition('.')
    meaning = None if below else meaning_of(first)
    if meaning and meaning.setting in READ:
        return f'. Is {_SIZE} meant?'
    wanted = meaning.setting.partition('=')[0] if meaning else ''
    meant = [
        place
        for place, _ in places(node)
        if place.split('.')[0] in READ
        and (place in (wanted, key) or place.endswith(f'.{key}'))
    ]
    if meant:
        # The nearest first: mostly the training is meant.
        meant.sort(key=lambda place: (place != wanted, place.count('.')))
        return f'. Is {" or ".join(meant[:3])} meant?'
    if meaning:
        if meaning.remark:
            return f': {meaning.remark}.'
        return f'. Is the option {meaning.flag} meant?'
    near = [f'{name}.{below}'.rstrip('.') for name in meant_by(first, READ)]
    return f'. Is {" or ".join(near)} meant?' if near else ''


def _other_kind(old: Any, new: Any) -> str | None:
    """Return what an old value is, if a new one is something else."""
    number = isinstance(new, int | float) and not isinstance(new, bool)
    several = isinstance(new, list | tuple)
    if old is None or new is None:
        return None
    if isinstance(old, bool):
        return None if isinstance(new, bool) else 'True or False'
    if isinstance(old, int | float):
        return None if number or several else 'a number'
    if old == 'auto':
        good = number or isinstance(new, str)
        return None if good else "a number or 'auto'"
    if isinstance(old, str):
        return None if several or isinstance(new, str) else 'text'
    if isinstance(old, dict):
        return None if isinstance(new, dict) else 'a dict'
    if isinstance(old, list | tuple):
        # One number or text may stand where several do, such as for knn.k.
        kind = str if isinstance(new, str) else int | float
        one = number or isinstance(new, str)
        one = one and bool(old) and all(isinstance(v, kind) for v in old)
        return None if one or several else 'a list'
    return None


def places(node: Any, place: str = '') -> Iterator[tuple[str, Any]]:
    """Yield every dotted place below a node, with what stands there."""
    entries: Any = ()
    if isinstance(node, dict):
        entries = list(node.items())
    elif isinstance(node, list | tuple):
        entries = enumerate(node)
    for name, value in entries:
        below = f'{place}.{name}' if place else str(name)
        yield below, value
        yield from places(value, below)


def _matches(place: str, pattern: str) -> bool:
    alike = place.count('.') == pattern.count('.')
    return alike and fnmatchcase(place, pattern)


def _shown(value: Any) -> str:
    return shortened(value, 80)
