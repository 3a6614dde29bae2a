from .base import MomentumContrast
from .distillation import Distillation
from .moco import MoCo

__all__ = ['Distillation', 'MoCo', 'MomentumContrast']
