from .backbone_only import BackboneOnly
from .densecl import DenseCL
from .distillation import Distillation
from .feature_distillation import FeatureDistillation
from .mmc import MMC
from .moco import MoCo
from .mocov3 import MoCoV3
from .momentum_contrast import MomentumContrast
from .teacher import Teacher

__all__ = [
    'MMC',
    'BackboneOnly',
    'DenseCL',
    'Distillation',
    'FeatureDistillation',
    'MoCo',
    'MoCoV3',
    'MomentumContrast',
    'Teacher',
]
