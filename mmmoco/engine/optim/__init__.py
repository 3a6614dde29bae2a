from .contrast_optim_wrapper import ContrastOptimWrapper
from .lars import LARS

__all__ = ['LARS', 'ContrastOptimWrapper']
