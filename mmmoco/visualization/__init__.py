from .checkpoints import plot_checkpoints
from .curves import plot_curves
from .neighbours import draw_neighbours
from .scalars import read_scalars

__all__ = [
    'draw_neighbours',
    'plot_checkpoints',
    'plot_curves',
    'read_scalars',
]
