from .checkpoints import plot_checkpoints
from .curves import plot_curves
from .neighbours import draw_neighbours
from .scalars import read_scalars
from .views import ViewPicture, draw_views

__all__ = [
    'ViewPicture',
    'draw_neighbours',
    'draw_views',
    'plot_checkpoints',
    'plot_curves',
    'read_scalars',
]
