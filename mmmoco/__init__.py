"""mmmoco: momentum-contrast pre-training for OpenMMLab."""

from typing import Any

from .version import __version__

__all__ = [
    'TrainStep',
    '__version__',
    'get_model',
    'list_configs',
    'load_config',
]


def __getattr__(name: str) -> Any:
    # What takes seconds to import: mmengine, mmpretrain and torch.
    if name == 'TrainStep':
        from .engine.train_step import TrainStep

        return TrainStep
    if name in __all__:
        from . import apis

        return getattr(apis, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
