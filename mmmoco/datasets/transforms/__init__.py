from .multi_hot import MultiHot
from .pipeline import build_pipeline
from .views import GaussianBlur, LoadRGB, PackImage, Views

__all__ = [
    'GaussianBlur',
    'LoadRGB',
    'MultiHot',
    'PackImage',
    'Views',
    'build_pipeline',
]
