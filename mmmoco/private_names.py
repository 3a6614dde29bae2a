"""Names of mmengine and torch that these do not promise to keep.

Each is used here and nowhere else, so that a version that moves one is met in
one place; ``tests/test_private_names.py`` asks each function on real objects.
"""

import builtins
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ContextDecorator, contextmanager
from typing import Any

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
