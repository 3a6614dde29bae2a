from .contrast_optim_wrapper import ContrastOptimWrapper

__all__ = ['ContrastOptimWrapper']
