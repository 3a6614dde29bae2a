from .charts import Line, line_chart, scatter_chart
from .checkpoints import plot_checkpoints
from .curves import plot_curves
from .embedding import embed
from .neighbours import draw_neighbours
from .report import FeatureMap, Picture, RunRecord, render_report
from .scalars import Series, merge_scalars, read_scalars
from .similarity import (
    draw_reconstructions,
    draw_segmentations,
    keep_mask,
    plot_similarities,
    plot_thresholds,
)
from .views import ViewPicture, draw_views

__all__ = [
    'FeatureMap',
    'Line',
    'Picture',
    'RunRecord',
    'Series',
    'ViewPicture',
    'draw_neighbours',
    'draw_reconstructions',
    'draw_segmentations',
    'draw_views',
    'embed',
    'keep_mask',
    'line_chart',
    'merge_scalars',
    'plot_checkpoints',
    'plot_curves',
    'plot_similarities',
    'plot_thresholds',
    'read_scalars',
    'render_report',
    'scatter_chart',
]
