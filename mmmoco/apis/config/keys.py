"""Every key of a config, held against what takes it, before it is built.

A dict with a ``type`` is held against the signature of its class, a data
loader against torch's, and so on. What nothing is known of is not refused;
but an option there is no near miss of a name that the config has.
"""

import sys
from collections.abc import Collection, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field, fields
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from types import UnionType
from typing import Any, Union, get_args, get_origin

from mmengine.config import Config
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from mmmoco.apis.foreign_flags import meaning_of
from mmmoco.apis.lookup import PACKAGES
from mmmoco.engine.changes import READ
from mmmoco.engine.evaluation import Splits
from mmmoco.engine.evaluation.knn import KNN
from mmmoco.engine.hooks import EvaluationHook
from mmmoco.engine.signatures import (
    Arguments,
    arguments_of,
    meant_by,
    one_edit_apart,
)
from mmmoco.messages import few, log_info, log_warning, shortened
from mmmoco.registry import bare_type, value_at

from .option_values import places

#: Libraries that may be imported to look a type up.
_LIBRARIES = tuple(PACKAGES)
#: What a dict may say beside the arguments of its type.
_ALWAYS = frozenset({'type', '_scope_', '_delete_'})
#: What whoever builds a part gives it.
_GIVEN = frozenset({'runner', 'dataloader', 'params', 'param_name'})
#: Of optim_wrapper, where it names none.
_CONSTRUCTOR = 'DefaultOptimWrapperConstructor'
_UNKNOWN = Arguments({}, complete=False)


def _names(*names: str) -> Arguments:
    return Arguments(dict.fromkeys(names), complete=True)


@dataclass(frozen=True)
class Room:
    """What may stand somewhere in a config.

    Attributes:
        registries: Where types are looked up, by their names in the
            ``registry`` module of each library.
        default: The type of a dict that names none.
        also: What whoever builds it takes out of the dict before.
        plain: What a dict takes that has no type at all.
        below: Rooms of entries by their names; the others stand in the same
            registries.
        entries: The room of every entry, where names are free.
        exact: Whether it is built with just what stands in it. Parts of
            other libraries take something out of their parts before.
    """

    registries: tuple[str, ...] = ()
    default: str = ''
    also: tuple[str, ...] = ()
    plain: Arguments = _UNKNOWN
    below: Mapping[str, 'Room'] = field(default_factory=dict, hash=False)
    entries: 'Room | None' = None
    exact: bool = True

    def of(self, name: str, exact: bool) -> 'Room':
        """Return the room of an entry."""
        if self.entries is not None:
            return self.entries
        if name in self.below:
            return self.below[name]
        if name in _ANYWHERE:
            return _ANYWHERE[name]
        # norm_cfg says what the network does with the layer's parameters.
        also = ('requires_grad',) if name.endswith('norm_cfg') else ()
        return Room(self.registries, also=also, exact=exact)


_INIT = Room(('WEIGHT_INITIALIZERS',), also=('bias_prob',))
_TRANSFORM = Room(('TRANSFORMS',))
_MODEL = Room(('MODELS', 'TASK_UTILS', 'BATCH_AUGMENTS', 'TOKENIZER'))
_DATASET = Room(('DATASETS',))
_ANYWHERE = {'init_cfg': _INIT, 'pipeline': _TRANSFORM, 'dataset': _DATASET}
_SAMPLER = Room(('DATA_SAMPLERS',))
_FUNCTION = Room(('FUNCTIONS',))
_LOADER = Room(
    plain=_names(*arguments_of(DataLoader).hints, 'num_batch_per_epoch'),
    below={
        'sampler': _SAMPLER,
        'batch_sampler': _SAMPLER,
        'collate_fn': _FUNCTION,
        'worker_init_fn': _FUNCTION,
    },
)
_KNN = Room(
    plain=_names(*Splits.SETTINGS, *(part.name for part in fields(KNN))),
    below={'bank': _LOADER, 'query': _LOADER},
)
_HOOK = Room(('HOOKS',), also=('priority',), below=_KNN.below)
_LOOP = Room(('LOOPS',), also=('by_epoch',))
_EVALUATOR = Room(('METRICS', 'EVALUATOR', 'EVALUATORS'))
_VISUALIZER = Room(
    ('VISUALIZERS',),
    default='Visualizer',
    below={'vis_backends': Room(('VISBACKENDS',))},
)
_OPTIMIZER = Room(
    ('OPTIM_WRAPPERS',),
    default='OptimWrapper',
    also=('optimizer', 'constructor', 'paramwise_cfg'),
    below={
        'optimizer': Room(('OPTIMIZERS',)),
        'paramwise_cfg': Room(
            plain=_names(
                *('bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult'),
                *('dwconv_decay_mult', 'dcn_offset_lr_mult'),
                *('flat_decay_mult', 'bypass_duplicate', 'custom_keys'),
            ),
            below={'custom_keys': Room(entries=Room())},
            exact=False,
        ),
    },
)
_TOP = {
    'model': _MODEL,
    'tta_model': _MODEL,
    'data_preprocessor': _MODEL,
    'model_wrapper_cfg': Room(('MODEL_WRAPPERS',)),
    **dict.fromkeys(
        ('train_dataloader', 'val_dataloader', 'test_dataloader'), _LOADER
    ),
    'tta_pipeline': _TRANSFORM,
    **dict.fromkeys(('train_cfg', 'val_cfg', 'test_cfg'), _LOOP),
    **dict.fromkeys(('val_evaluator', 'test_evaluator'), _EVALUATOR),
    'optim_wrapper': _OPTIMIZER,
    'param_scheduler': Room(
        ('PARAM_SCHEDULERS',), also=('convert_to_iter_based',)
    ),
    'custom_hooks': _HOOK,
    'default_hooks': Room(entries=_HOOK),
    'visualizer': _VISUALIZER,
    'log_processor': Room(('LOG_PROCESSORS',), default='LogProcessor'),
    'knn': _KNN,
    'evaluations': Room(entries=Room(('EVALUATIONS',))),
    **dict.fromkeys(
        ('auto_scale_lr', 'auto_scale_m'),
        Room(plain=_names('base_batch_size', 'enable')),
    ),
    'randomness': Room(
        plain=_names(*list(arguments_of(Runner.set_randomness).hints)[1:])
    ),
    'env_cfg': Room(
        plain=_names('cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit')
    ),
}


@dataclass(frozen=True)
class Taker:
    """A dict of a config, and what takes it.

    Attributes:
        place: Its dotted place.
        node: The dict.
        room: Where it stands.
        kind: Name of its type; '' if it has none.
        takes: The names that it may have.
        scopes: Where types below it are looked up.
        ours: Whether the type is one of mmmoco's.
    """

    place: str
    node: MutableMapping[str, Any]
    room: Room
    kind: str
    takes: Arguments
    scopes: tuple[str, ...]
    ours: bool = False

    def room_of(self, name: str) -> Room:
        """Return the room of an entry."""
        other = self.node.get('constructor', _CONSTRUCTOR) != _CONSTRUCTOR
        if other and name == 'paramwise_cfg':
            return Room()  # It may read anything.
        return self.room.of(name, self.ours)

    def refuse(self, name: str, option: str = '') -> None:
        """Raise KeyError for a name that is not taken.

        Args:
            name: Of the entry.
            option: How messages begin.

        Raises:
            KeyError: In any case.
        """
        had = set(map(str, self.node)) - {name}
        known = [*self.takes.hints] or sorted(had)
        meant = meant_by(name, {*known, *had, *_ALWAYS})
        if not meant:
            meant = [
                f'{self.place}.{place}'
                for place, _ in places(dict(self.node))
                if place.endswith(f'.{name}')
            ]
        meaning = meaning_of(name)
        if not meant and meaning and meaning.setting:
            setting = meaning.setting.partition('=')[0]
            meant = [setting] * (setting != f'{self.place}.{name}')
        hint = f'did you mean {" or ".join(meant[:3])}? ' if meant else ''
        what = self.kind or self.place
        shown = few([n for n in known if n not in _ALWAYS | _GIVEN], 24)
        raise KeyError(
            f'{option}{self.place}.{name}: {hint}{what} takes {shown}.'
        )


def check_keys(cfg: Config, options: Collection[str] = ()) -> None:
    """Hold all of a config against what takes it.

    Args:
        cfg: With its options.
        options: Their dotted places.

    Raises:
        KeyError: If something takes no such name; with the one that was
            meant.
        ValueError: If a value is of another kind than the signature says.
    """
    _warn_of_near_misses(cfg)
    for taker in takers(cfg):
        if taker.room.exact or f'{taker.place}.type' in options:
            _check_type(taker)
        for name, value in taker.node.items():
            if name in taker.takes.hints:
                _check_kind(taker, name, value)
            elif name not in _ALWAYS and taker.takes.complete:
                others = taker.takes.hints.keys() - taker.node.keys()
                if taker.room.exact or any(
                    _misspelt(name, other) for other in others
                ):
                    taker.refuse(name)


def check_option_keys(
    cfg: Config, before: Config, options: Collection[str]
) -> None:
    """Hold the names that options bring against what takes them.

    Args:
        cfg: With the options.
        before: Without.
        options: Their dotted places.

    Raises:
        KeyError: If something takes no such name, or if it is a near miss
            of a name that stood there.
    """
    for option in options:
        for taker, name in _way(cfg, option.split('.')):
            old = value_at(before, taker.place)
            had = old if isinstance(old, Mapping) else taker.node
            takes = taker.takes
            if name in had or name in _ALWAYS or name in takes.hints:
                continue
            whole = taker.room.exact or not taker.kind
            if (takes.complete and whole) or any(
                _misspelt(name, near)
                for near in {*map(str, had), *takes.hints, *_ALWAYS}
            ):
                taker.refuse(name, '--cfg-options ')


def drop_leftovers(cfg: Config, options: Collection[str]) -> None:
    """Drop what the config gave to a part whose type an option replaces.

    What the new one also takes stays, so that the type can be changed on the
    command line.
    """
    for taker in takers(cfg):
        place = taker.place
        known = taker.takes.hints.keys() - {*taker.room.also}
        if f'{place}.type' not in options or not known:
            continue
        given = {
            o.split('.')[place.count('.') + 1]
            for o in options
            if o.startswith(f'{place}.')
        }
        kept = {*taker.takes.hints, *_ALWAYS}
        if place == 'model.backbone':
            kept -= _of_another_network(taker)
        left = [name for name in taker.node if name not in {*kept, *given}]
        for name in left:
            del taker.node[name]
        if left:
            log_info(
                f'{place}.type={taker.kind}: {", ".join(left)} of the config '
                'are of another type, and left out.'
            )


def _of_another_network(taker: Taker) -> set[str]:
    """Return what means something else in each network, by equal names."""
    found = {'out_indices'}
    for cls in _classes(taker.kind, taker.room.registries, taker.scopes):
        own = signature(cls).parameters.get('norm_cfg')
        usual = own and own.default
        if isinstance(usual, dict) and not bare_type(usual).endswith('BN'):
            found.add('norm_cfg')
    return found


def _way(cfg: Config, parts: list[str]) -> Iterator[tuple[Taker, str]]:
    """Yield the dicts on the way to a place, and where it goes on."""
    place, node = parts[0], cfg.get(parts[0])
    room, scopes = _TOP.get(place), _scopes_of(cfg)
    if room is None:
        return
    for part in parts[1:]:
        if isinstance(node, list | tuple):
            if not part.isdigit() or int(part) >= len(node):
                return
            node = node[int(part)]
        elif isinstance(node, MutableMapping):
            taker = _taker(place, node, room, scopes)
            yield taker, part
            if part not in node:
                return
            node, room, scopes = node[part], taker.room_of(part), taker.scopes
        place = f'{place}.{part}'


def takers(cfg: Config) -> Iterator[Taker]:
    """Yield every dict that the runner reads, from the outermost in."""
    for name, value in list(cfg.items()):
        if name in _TOP:
            yield from _takers(name, value, _TOP[name], _scopes_of(cfg))


def _takers(
    place: str, node: Any, room: Room, scopes: tuple[str, ...]
) -> Iterator[Taker]:
    if isinstance(node, list | tuple):
        for number, value in enumerate(node):
            yield from _takers(f'{place}.{number}', value, room, scopes)
    elif isinstance(node, MutableMapping):
        taker = _taker(place, node, room, scopes)
        yield taker
        for name, value in list(node.items()):
            below = f'{place}.{name}'
            yield from _takers(below, value, taker.room_of(name), taker.scopes)


def _scopes_of(cfg: Config) -> tuple[str, ...]:
    return (cfg.get('default_scope') or 'mmmoco',)


def _taker(
    place: str,
    node: MutableMapping[str, Any],
    room: Room,
    scopes: tuple[str, ...],
) -> Taker:
    kind = node.get('type') or room.default
    scopes = tuple(filter(None, (node.get('_scope_'), *scopes)))
    if not kind:
        return Taker(place, node, room, '', room.plain, scopes)
    if not isinstance(kind, str):
        if not callable(kind):
            raise ValueError(
                f'{place}.type={shortened(kind, 80)}: it has to be the name '
                'of a class.'
            )
        name, found = getattr(kind, '__name__', str(kind)), [kind]
    else:
        name = kind
        found = list(_classes(kind, room.registries, scopes))
        scope = kind.partition('.')[0]
        if scope in _LIBRARIES:
            # Its parts are mostly named as in its own configs.
            scopes = (*scopes, scope)
    hints: dict[str, Any] = {}
    complete = bool(found)
    for cls in found:
        takes = arguments_of(cls)
        hints |= takes.hints
        complete = complete and takes.complete
        if isinstance(cls, type) and issubclass(cls, EvaluationHook):
            hints |= _KNN.plain.hints
            complete = True
    if room is _TOP['optim_wrapper'] and node.get('constructor'):
        complete = complete and 'type' in node
    takes = Arguments(hints | dict.fromkeys(room.also), complete)
    ours = any(
        c.__module__.startswith('mmmoco')
        for c in found
        if hasattr(c, '__module__')
    )
    return Taker(place, node, room, name, takes, scopes, ours)


def _classes(
    name: str, registries: tuple[str, ...], scopes: tuple[str, ...]
) -> tuple[Any, ...]:
    """Return what a type may be: what the nearest scope has by the name."""
    scope, found, rest = name.partition('.')
    if found and _registries(scope, registries):
        name, scopes = rest, (scope,)
    for scope in (*scopes, 'mmengine'):
        classes = tuple(
            held[name]
            for held in _registries(scope, registries)
            if name in held
        )
        if classes:
            return classes
    # A class by its whole path, of a module that is there already.
    module, _, name = name.rpartition('.')
    there = getattr(sys.modules.get(module), name, None)
    return (there,) if callable(there) else ()


@cache
def _library(scope: str) -> Any:
    """Return the module of registries of a library, None if there is none."""
    module = f'{scope}.registry'
    known = scope in _LIBRARIES and find_spec(scope) is not None
    if scope == 'mmengine' or known:
        return import_module(module)
    return None


def _registries(scope: str, names: tuple[str, ...]) -> list[Mapping[str, Any]]:
    """Return what registries of a library hold."""
    module = _library(scope) or sys.modules.get(f'{scope}.registry')
    held = []
    for name in names:
        registry = getattr(module, name, None)
        if registry is not None:
            if scope in _LIBRARIES:
                registry.import_from_location()
            held.append(registry.module_dict)
    return held


def _check_type(taker: Taker) -> None:
    """Refuse a type that is a near miss of one that there is.

    Raises:
        KeyError: With the one that was meant.
    """
    kind = taker.node.get('type')
    registries = taker.room.registries
    if not isinstance(kind, str) or not registries:
        return
    if _classes(kind, registries, taker.scopes):
        return
    scope, found, rest = kind.partition('.')
    held = _registries(scope, registries) if found else []
    prefix = f'{scope}.' if held else ''
    name = rest if held else kind
    if not held:
        for scope in (*taker.scopes, 'mmengine'):
            held += _registries(scope, registries)
    meant = [
        known
        for known in meant_by(name, {n for names in held for n in names})
        if one_edit_apart(name.lower(), known.lower())
        or name.lower() == known.lower()
    ]
    if meant:
        raise KeyError(
            f'{taker.place}.type={kind!r}: did you mean '
            f'{" or ".join(prefix + m for m in meant[:3])}?'
        )


def _check_kind(taker: Taker, name: str, value: Any) -> None:
    """Refuse what certainly is not what a signature wants.

    Only text and dicts are told from numbers: signatures are often too
    narrow.

    Raises:
        ValueError: If it is.
    """
    hint = taker.takes.hints[name]
    kinds = {hint}
    if get_origin(hint) in (Union, UnionType):
        kinds = set(get_args(hint)) - {type(None)}
    # bool stands for more than that, in mmpretrain's CAE for 'qv_bias'.
    numbers = bool(kinds) and kinds <= {int, float}
    if numbers and isinstance(value, str | Mapping):
        raise ValueError(
            f'{taker.place}.{name}={shortened(value, 80)}: {taker.kind} wants '
            'a number.'
        )


def _warn_of_near_misses(cfg: Config) -> None:
    """Say which names of a config are nearly those that the runner reads."""
    for name in cfg:
        meant = [
            known
            for known in sorted(READ)
            if len(known) > 4 and _misspelt(str(name), known)
        ]
        if name not in READ and meant:
            log_warning(
                f'{name} of the config is a variable of its own: did you '
                f'mean {" or ".join(meant)}?'
            )


def _misspelt(name: str, known: str) -> bool:
    """Whether a name is meant to be another: view_2 is none of view_1."""
    if not one_edit_apart(name, known):
        return False
    letters = [
        ''.join(c for c in text if not c.isdigit()) for text in (name, known)
    ]
    if letters[0] == letters[1]:
        return False
    differing = [
        pair
        for pair in zip(name.split('_'), known.split('_'), strict=False)
        if pair[0] != pair[1]
    ]
    # view_q and view_k are two names.
    alike = name.count('_') == known.count('_') and len(name) == len(known)
    return not (alike and all(len(a) == 1 == len(b) for a, b in differing))
