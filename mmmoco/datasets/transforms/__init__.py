"""Transforms, registered by their names in configs."""

from . import bands, fast_views, loading, multi_hot, satellite, views

__all__ = ['bands', 'fast_views', 'loading', 'multi_hot', 'satellite', 'views']
