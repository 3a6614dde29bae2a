"""The registries of mmmoco, scope ``mmmoco``.

Every registry is a direct child of mmengine's root, so that ``mmmoco.X`` can
be named from a config of any OpenMMLab library, and parts of other libraries
are named here with their scope (``mmpretrain.ResNet``, ``mmdet.X``). All the
registries that mmpretrain defines exist here too: with only some of them,
building under ``default_scope='mmmoco'`` falls back to the root and fails.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

from mmengine import registry as root
from mmengine.registry import DefaultScope, Registry

_ENGINE = ['mmmoco.engine']
_DATASETS = ['mmmoco.datasets']
_MODELS = ['mmmoco.models']
_EVALUATION = ['mmmoco.evaluation']
_VISUALIZATION = ['mmmoco.visualization']


def _child(
    name: str, parent: Registry | None, locations: list[str]
) -> Registry:
    return Registry(name, parent=parent, scope='mmmoco', locations=locations)


RUNNERS = _child('runner', root.RUNNERS, _ENGINE)
RUNNER_CONSTRUCTORS = _child(
    'runner constructor', root.RUNNER_CONSTRUCTORS, _ENGINE
)
LOOPS = _child('loop', root.LOOPS, _ENGINE)
HOOKS = _child('hook', root.HOOKS, _ENGINE)
LOG_PROCESSORS = _child('log processor', root.LOG_PROCESSORS, _ENGINE)
OPTIMIZERS = _child('optimizer', root.OPTIMIZERS, _ENGINE)
OPTIM_WRAPPERS = _child('optimizer_wrapper', root.OPTIM_WRAPPERS, _ENGINE)
OPTIM_WRAPPER_CONSTRUCTORS = _child(
    'optimizer wrapper constructor', root.OPTIM_WRAPPER_CONSTRUCTORS, _ENGINE
)
PARAM_SCHEDULERS = _child(
    'parameter scheduler', root.PARAM_SCHEDULERS, _ENGINE
)

DATASETS = _child('dataset', root.DATASETS, _DATASETS)
DATA_SAMPLERS = _child('data sampler', root.DATA_SAMPLERS, _DATASETS)
TRANSFORMS = _child('transform', root.TRANSFORMS, _DATASETS)

MODELS = _child('model', root.MODELS, _MODELS)
MODEL_WRAPPERS = _child('model_wrapper', root.MODEL_WRAPPERS, _MODELS)
WEIGHT_INITIALIZERS = _child(
    'weight initializer', root.WEIGHT_INITIALIZERS, _MODELS
)
BATCH_AUGMENTS = _child('batch augment', None, _MODELS)
TASK_UTILS = _child('task util', root.TASK_UTILS, _MODELS)
TOKENIZER = _child('tokenizer', None, _MODELS)

EVALUATIONS = _child('evaluation', None, ['mmmoco.engine.evaluation'])

METRICS = _child('metric', root.METRICS, _EVALUATION)
EVALUATORS = _child('evaluator', root.EVALUATOR, _EVALUATION)

VISUALIZERS = _child('visualizer', root.VISUALIZERS, _VISUALIZATION)
VISBACKENDS = _child('vis_backend', root.VISBACKENDS, _VISUALIZATION)


def in_scope_of(cfg: Mapping[str, Any]) -> AbstractContextManager[Any]:
    """Look types without a scope up where a config says."""
    scope = cfg.get('default_scope', 'mmmoco')
    return DefaultScope.overwrite_default_scope(scope)


def bare_type(config: Mapping[str, Any]) -> str:
    """Return the ``type`` of a config without its scope; '' without one."""
    kind = config.get('type')
    name = kind if isinstance(kind, str) else getattr(kind, '__name__', '')
    return name.rpartition('.')[2]


def dicts_in(node: Any) -> Iterator[Any]:
    """Yield every dict of a config, from the outermost in."""
    if isinstance(node, Mapping):
        yield node
        node = tuple(node.values())
    if isinstance(node, list | tuple):
        for value in node:
            yield from dicts_in(value)
