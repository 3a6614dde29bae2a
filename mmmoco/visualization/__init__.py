from .curves import plot_curves
from .neighbours import draw_neighbours
from .scalars import read_scalars
from .views import Picture, draw_views

__all__ = [
    'Picture',
    'draw_neighbours',
    'draw_views',
    'plot_curves',
    'read_scalars',
]
