from .pipeline import build_pipeline
from .views import GaussianBlur, LoadRGB, PackImage, Views

__all__ = ['GaussianBlur', 'LoadRGB', 'PackImage', 'Views', 'build_pipeline']
