"""Transforms, registered by their names in configs."""

from typing import Any

from . import bands, fast_views, loading, multi_hot, pipeline, satellite, views

_MODULES = (bands, fast_views, loading, multi_hot, pipeline, satellite, views)


def __getattr__(name: str) -> Any:
    """Return what one of the modules defines."""
    for module in _MODULES:
        if getattr(vars(module).get(name), '__module__', '').startswith(
            __name__
        ):
            return vars(module)[name]
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
