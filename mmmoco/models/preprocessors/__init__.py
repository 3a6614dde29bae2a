from .batch_photometric import (
    BatchColorJitter,
    BatchDiscreteRotation,
    BatchFlip,
    BatchGaussianBlur,
    BatchGaussianNoise,
    BatchGrayscale,
    BatchSolarize,
)
from .batch_views import (
    BatchBrightnessContrast,
    BatchRandomResizedCrop,
    BatchView,
)
from .corruption import BlockCorruption
from .masked_view_augmentor import MaskedViewAugmentor
from .view_augmentor import ViewAugmentor
