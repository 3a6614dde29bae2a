from .batch_views import BatchBrightnessContrast, BatchRandomResizedCrop
from .view_augmentor import ViewAugmentor

__all__ = [
    'BatchBrightnessContrast',
    'BatchRandomResizedCrop',
    'ViewAugmentor',
]
