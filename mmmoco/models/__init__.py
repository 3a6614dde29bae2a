from . import (
    algorithms,
    backbones,
    dictionaries,
    encoders,
    heads,
    losses,
    norms,
    preprocessors,
)

__all__ = [
    'algorithms',
    'backbones',
    'dictionaries',
    'encoders',
    'heads',
    'losses',
    'norms',
    'preprocessors',
]
