"""Names of mmengine and torch that these do not promise to keep.

Each is used here and nowhere else, so that a version that moves one is met in
one place; ``tests/test_private_names.py`` asks each function on real objects.
"""

import builtins
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ContextDecorator, contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.model import BaseModule
from mmengine.runner import BaseLoop
from torch import Tensor, nn

#: Every BatchNorm, the synchronised one too.
BatchNorm = nn.modules.batchnorm._BatchNorm
#: Every layer that may keep statistics of its input.
Normalisation = nn.modules.batchnorm._NormBase
Convolution = nn.modules.conv._ConvNd

_ABSENT = object()


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Put something in the place of an attribute, for a while.

    Args:
        owner: Module or class that has it; a module may also get a name of
            python's own, such as ``open``.
        name: Of the attribute.
        value: What stands there meanwhile.

    Raises:
        AttributeError: If there is no such attribute.
    """
    before = vars(owner).get(name, _ABSENT)
    if before is _ABSENT and not hasattr(builtins, name):
        raise AttributeError(f'{owner.__name__} has no {name}')
    setattr(owner, name, value)
    try:
        yield
    finally:
        if before is _ABSENT:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


class Shared(ContextDecorator):
    """A context that holds from the first who enters to the last who leaves.

    Args:
        make: Returns the context.
    """

    def __init__(
        self, make: Callable[[], AbstractContextManager[None]]
    ) -> None:
        self._make = make
        self._lock = threading.RLock()
        self._users = 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._users:
                self._context = self._make()
                self._context.__enter__()
            self._users += 1

    def __exit__(self, *error: Any) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._context.__exit__(None, None, None)


# torch


def cpu_has_bfloat16() -> bool:
    """Whether the CPU computes in bfloat16, and does not emulate it."""
    # torch tells of one kind of units only, under changing private names.
    units = {'avx512_bf16', 'amx_bf16', 'bf16'}  # The last: ARM's
    try:
        text = Path('/proc/cpuinfo').read_text(encoding='utf-8')
    except OSError:  # Not on Linux
        return False
    return not units.isdisjoint(text.split())


def writes_to(tensor: Tensor) -> int:
    """Return how often a tensor was written in place."""
    return tensor._version


def end_workers(loader: Any) -> None:
    """End the data workers that persist."""
    workers = vars(loader).get('_iterator')
    if isinstance(workers, _Workers):
        workers._shutdown_workers()


def set_batches(loader: Any, batches: Any) -> None:
    """Let a loader that is not in use take its batches from elsewhere."""
    # By itself it refuses: what depends on them could no longer fit.
    object.__setattr__(loader, 'batch_sampler', batches)


_Workers = torch.utils.data.dataloader._MultiProcessingDataLoaderIter


def keep_versions(
    before: Mapping[Any, Any], after: Any, rename: Callable[[str], str]
) -> None:
    """Let a state dict keep the versions of modules of another one.

    By these, modules read the layouts of older files.

    Args:
        before: State dict.
        after: The same, under other names.
        rename: Returns the new name of a module.
    """
    versions = getattr(before, '_metadata', None)
    if isinstance(versions, Mapping):
        vars(after)['_metadata'] = {
            rename(str(name)): version for name, version in versions.items()
        }


# mmengine


def unsaid_initialization() -> AbstractContextManager[None]:
    """Let models not say of every parameter how it was initialised."""
    return replaced(BaseModule, '_dump_init_info', lambda model: None)


def accumulation_of(wrapper: Any) -> int:
    """Return over how many iterations an optimizer wrapper accumulates."""
    return getattr(wrapper, '_accumulative_counts', 1)


def has_loaded(runner: Any) -> bool:
    """Whether a runner has loaded a checkpoint, or resumed from one."""
    return bool(runner._has_loaded)


def only_tests(runner: Any) -> bool:
    """Whether a runner has begun to test, and never to train."""
    train, test = (
        isinstance(vars(runner).get(f'_{name}_loop'), BaseLoop)
        for name in ('train', 'test')
    )
    return test and not train


def set_iteration(loop: Any, iteration: int) -> None:
    """Let a loop go on at an iteration."""
    loop._iter = iteration


def steps_of(scheduler: Any) -> int:
    """Return how often a schedule was stepped, its first time included."""
    return int(scheduler._global_step)


def begin_steps(optimizer: Any) -> None:
    """Tell schedules that an optimizer which never steps is in use."""
    optimizer._global_step = 0


def scale_values(scheduler: Any, factor: float) -> None:
    """Multiply what a schedule starts from and what it gave last."""
    for name in ('base_values', '_last_value'):
        values = vars(scheduler)[name]
        vars(scheduler)[name] = [value * factor for value in values]


def backends_of(visualizer: Any) -> Iterable[Any]:
    """Return what a visualizer writes to."""
    backends: dict[str, Any] = visualizer._vis_backends
    return backends.values()


def scalar_file_of(backend: Any) -> str | None:
    """Return the file to which such a backend appends scalars, if it does."""
    return vars(backend).get('_scalar_save_file')


def instances_of(kind: Any) -> dict[str, Any]:
    """Return what a class of mmengine keeps by name for the process."""
    found: dict[str, Any] = kind._instance_dict
    return found


def base_of(base: str, filename: str) -> tuple[str, str | None]:
    """Return the file of a ``_base_`` and its scope, as mmengine finds it."""
    found: tuple[str, str | None] = _base_of(base, filename)
    return found


_base_of = Config._get_cfg_path


def bases_found_by(
    find: Callable[[str, str], tuple[str, str | None]],
) -> AbstractContextManager[None]:
    """Let configs find their ``_base_`` by a function of ours."""
    return replaced(Config, '_get_cfg_path', staticmethod(find))


def templates_escaped(text: str) -> str:
    """Return the text of a config in which mmengine substitutes nothing.

    What stands between double braces may come from the name of a folder, and
    would become a part of the config, as code. In Python and in JSON this is
    the same string.
    """
    return text.replace('{{', r'{\u007b')
