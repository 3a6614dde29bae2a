from . import checkpoint_io, hooks, optim
from .loops import ContrastEpochLoop
from .runner import ContrastRunner

__all__ = [
    'ContrastEpochLoop',
    'ContrastRunner',
    'checkpoint_io',
    'hooks',
    'optim',
]
