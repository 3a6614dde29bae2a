"""What the operating system gives: Linux all of it, others a part."""

import os
import sys
from contextlib import suppress
from importlib import import_module
from typing import Any


def module(name: str) -> Any:
    """Return a module of python's own that not every system has, or None."""
    try:
        return import_module(name)
    except ImportError:
        return None


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory() -> int | None:
    """Return the bytes that this process may have; None if nothing tells."""
    rooms = []
    with suppress(AttributeError, ValueError):
        rooms.append(os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES'))
    if (resource := module('resource')) is not None:
        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            rooms.append(limit)
    return min(rooms, default=None)


def flags(*names: str) -> int:
    """Return what ``os.open`` takes, without what is unknown here.

    Args:
        *names: Such as ``'O_CLOEXEC'``.
    """
    found = 0
    for name in names:
        found |= getattr(os, name, 0)
    return found


def may_run(pid: int) -> bool:
    """Whether a process runs; True where that cannot be asked."""
    if sys.platform == 'win32':  # It would be sent Ctrl-C.
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # It is another user's.
    return True
