from .base import MomentumContrast
from .moco import MoCo

__all__ = ['MoCo', 'MomentumContrast']
