from .curves import plot_curves
from .neighbours import draw_neighbours
from .scalars import read_scalars
from .similarity import (
    draw_reconstructions,
    draw_segmentations,
    plot_similarities,
    plot_thresholds,
)
from .views import Picture, draw_views

__all__ = [
    'Picture',
    'draw_neighbours',
    'draw_reconstructions',
    'draw_segmentations',
    'draw_views',
    'plot_curves',
    'plot_similarities',
    'plot_thresholds',
    'read_scalars',
]
