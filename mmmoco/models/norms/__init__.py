from .split_bn import SplitBN
