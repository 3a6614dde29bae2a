"""An object in a process of its own: what it sets there is its alone."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope

_built: Any = None


class OwnProcess:
    """Builds an object in a fresh process and calls its methods there.

    Args:
        build: What returns the object; it is pickled.
    """

    def __init__(self, build: Callable[[], Any]) -> None:
        context = multiprocessing.get_context('spawn')
        self.pool = ProcessPoolExecutor(1, mp_context=context)
        self.pool.submit(_build, build).result()

    def call(self, method: str, *args: Any) -> Any:
        """Return what a method of the object returns."""
        return self.pool.submit(_call, method, *args).result()


def in_own_process(function: Callable[..., Any], *args: Any) -> Any:
    """Return what a function returns in a fresh process."""
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *args).result()


def prepare() -> None:
    """Make mmengine find the models and keep quiet."""
    MMLogger.get_instance('benchmark', log_level='ERROR')
    init_default_scope('mmmoco')


def _build(build: Callable[[], Any]) -> None:
    global _built
    prepare()
    _built = build()


def _call(method: str, *args: Any) -> Any:
    return getattr(_built, method)(*args)
