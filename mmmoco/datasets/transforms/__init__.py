from .fast_views import (
    FastColorJitter,
    FastFlip,
    FastGaussianBlur,
    FastGrayscale,
    FastRandomResizedCrop,
    FastSolarize,
    FastView,
)
from .loading import LoadRGB, ToPIL, decode_rgb
from .pipeline import build_pipeline
from .views import PackImage, Views

__all__ = [
    'FastColorJitter',
    'FastFlip',
    'FastGaussianBlur',
    'FastGrayscale',
    'FastRandomResizedCrop',
    'FastSolarize',
    'FastView',
    'LoadRGB',
    'PackImage',
    'ToPIL',
    'Views',
    'build_pipeline',
    'decode_rgb',
]
