from . import checkpoint_io, hooks, optim
from .runner import ContrastRunner

__all__ = ['ContrastRunner', 'checkpoint_io', 'hooks', 'optim']
