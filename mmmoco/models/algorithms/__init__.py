from .backbone_only import BackboneOnly
from .distillation import Distillation
from .mmc import MMC
from .moco import MoCo
from .mocov3 import MoCoV3
from .momentum_contrast import MomentumContrast

__all__ = [
    'MMC',
    'BackboneOnly',
    'Distillation',
    'MoCo',
    'MoCoV3',
    'MomentumContrast',
]
