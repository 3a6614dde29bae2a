from .base import MomentumContrast
from .distillation import Distillation
from .moco import MoCo
from .mocov3 import MoCoV3

__all__ = ['Distillation', 'MoCo', 'MoCoV3', 'MomentumContrast']
