from .batch_views import BatchBrightnessContrast, BatchRandomResizedCrop
from .corruption import BlockCorruption
from .masked_view_augmentor import MaskedViewAugmentor
from .view_augmentor import ViewAugmentor

__all__ = [
    'BatchBrightnessContrast',
    'BatchRandomResizedCrop',
    'BlockCorruption',
    'MaskedViewAugmentor',
    'ViewAugmentor',
]
