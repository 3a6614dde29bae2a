from .split_bn import SplitBN

__all__ = ['SplitBN']
