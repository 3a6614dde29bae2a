from .charts import Line, line_chart, scatter_chart
from .curves import plot_curves
from .embedding import embed
from .neighbours import draw_neighbours
from .report import FeatureMap, Picture, RunRecord, render_report
from .scalars import Series, merge_scalars, read_json_lines, read_scalars

__all__ = [
    'FeatureMap',
    'Line',
    'Picture',
    'RunRecord',
    'Series',
    'draw_neighbours',
    'embed',
    'line_chart',
    'merge_scalars',
    'plot_curves',
    'read_json_lines',
    'read_scalars',
    'render_report',
    'scatter_chart',
]
