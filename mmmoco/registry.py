"""The registries of mmmoco, scope ``mmmoco``.

Every registry is a direct child of mmengine's root, so that ``mmmoco.X`` can
be named from a config of any OpenMMLab library, and parts of other libraries
are named here with their scope (``mmpretrain.ResNet``, ``mmdet.X``). All the
registries that mmpretrain defines exist here too: with only some of them,
building under ``default_scope='mmmoco'`` falls back to the root and fails.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from mmengine import registry as root
from mmengine.registry import DefaultScope, Registry

_ENGINE = ['mmmoco.engine']
_DATASETS = ['mmmoco.datasets']
_MODELS = ['mmmoco.models']
_EVALUATION = ['mmmoco.evaluation']
_VISUALIZATION = ['mmmoco.visualization']


def _child(parent: Registry, locations: list[str]) -> Registry:
    return _own(parent.name, locations, parent)


def _own(
    name: str, locations: list[str], parent: Registry | None = None
) -> Registry:
    return Registry(name, parent=parent, scope='mmmoco', locations=locations)


RUNNERS = _child(root.RUNNERS, _ENGINE)
RUNNER_CONSTRUCTORS = _child(root.RUNNER_CONSTRUCTORS, _ENGINE)
LOOPS = _child(root.LOOPS, _ENGINE)
HOOKS = _child(root.HOOKS, _ENGINE)
LOG_PROCESSORS = _child(root.LOG_PROCESSORS, _ENGINE)
OPTIMIZERS = _child(root.OPTIMIZERS, _ENGINE)
OPTIM_WRAPPERS = _child(root.OPTIM_WRAPPERS, _ENGINE)
OPTIM_WRAPPER_CONSTRUCTORS = _child(root.OPTIM_WRAPPER_CONSTRUCTORS, _ENGINE)
PARAM_SCHEDULERS = _child(root.PARAM_SCHEDULERS, _ENGINE)

DATASETS = _child(root.DATASETS, _DATASETS)
DATA_SAMPLERS = _child(root.DATA_SAMPLERS, _DATASETS)
TRANSFORMS = _child(root.TRANSFORMS, _DATASETS)

MODELS = _child(root.MODELS, _MODELS)
MODEL_WRAPPERS = _child(root.MODEL_WRAPPERS, _MODELS)
WEIGHT_INITIALIZERS = _child(root.WEIGHT_INITIALIZERS, _MODELS)
BATCH_AUGMENTS = _own('batch augment', _MODELS)
TASK_UTILS = _child(root.TASK_UTILS, _MODELS)
TOKENIZER = _own('tokenizer', _MODELS)

EVALUATIONS = _own('evaluation', ['mmmoco.engine.evaluation'])

METRICS = _child(root.METRICS, _EVALUATION)
EVALUATORS = _child(root.EVALUATOR, _EVALUATION)

VISUALIZERS = _child(root.VISUALIZERS, _VISUALIZATION)
VISBACKENDS = _child(root.VISBACKENDS, _VISUALIZATION)


def in_scope_of(cfg: Mapping[str, Any]) -> AbstractContextManager[Any]:
    """Look types without a scope up where a config says."""
    scope = cfg.get('default_scope', 'mmmoco')
    return DefaultScope.overwrite_default_scope(scope)


def bare_type(config: Mapping[str, Any]) -> str:
    """Return the ``type`` of a config without its scope; '' without one."""
    kind = config.get('type')
    name = kind if isinstance(kind, str) else getattr(kind, '__name__', '')
    return name.rpartition('.')[2]


def value_at(node: Any, place: str) -> Any:
    """Return what stands at a dotted place of a config; None: nothing."""
    for name in place.split('.'):
        if isinstance(node, list | tuple):
            number = int(name) if name.isdecimal() else len(node)
            node = node[number] if number < len(node) else None
        else:
            node = node.get(name) if hasattr(node, 'get') else None
    return node


def leaves(node: Any, place: str = '') -> Iterator[tuple[str, Any]]:
    """Yield by its place every value of a config that holds no others."""
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(node, Mapping):
        parts = node.items()
    elif isinstance(node, list | tuple) and any(
        isinstance(value, Mapping | list | tuple) for value in node
    ):
        parts = enumerate(node)
    if not parts:
        yield place, node
    for name, value in parts:
        yield from leaves(value, f'{place}.{name}' if place else str(name))


def dicts_in(node: Any) -> Iterator[Any]:
    """Yield every dict of a config, from the outermost in."""
    if isinstance(node, Mapping):
        yield node
        node = tuple(node.values())
    if isinstance(node, list | tuple):
        for value in node:
            yield from dicts_in(value)
