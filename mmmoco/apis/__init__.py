"""What the tools call and users import.

A room for each kind of work. Its ``jobs.py`` holds the functions behind the
tools; they import what they need when they are called.
"""

from importlib import import_module
from typing import Any

from .process import require_openmmlab

_ROOMS = {
    'get_model': 'model',
    'list_configs': 'lookup',
    'load_config': 'config.files',
    'package_bases': 'config.files',
}
__all__ = list(_ROOMS)


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        if name != 'list_configs':
            require_openmmlab()
        module = import_module(f'{__name__}.{_ROOMS[name]}')
        return getattr(module, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
