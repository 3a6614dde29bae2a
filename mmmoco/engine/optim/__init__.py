from .contrast_optim_wrapper import ContrastOptimWrapper
from .lars import LARS
from .schedulers import CosineFromOneLR, WarmupLR
