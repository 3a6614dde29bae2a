from . import (
    algorithms,
    backbones,
    dictionaries,
    encoders,
    losses,
    norms,
    preprocessors,
)

__all__ = [
    'algorithms',
    'backbones',
    'dictionaries',
    'encoders',
    'losses',
    'norms',
    'preprocessors',
]
