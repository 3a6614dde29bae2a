"""mmmoco: momentum-contrast pre-training for OpenMMLab."""

from typing import Any

from .version import __version__

__all__ = ['__version__', 'get_model', 'list_configs']


def __getattr__(name: str) -> Any:
    # The API pulls in mmpretrain (seconds); the registries need not.
    if name in ('get_model', 'list_configs'):
        from . import apis

        return getattr(apis, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
