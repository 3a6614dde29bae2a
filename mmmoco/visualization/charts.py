"""Line and scatter charts as SVG, to stand inside an HTML page.

Their colours are the page's: ``var(--c0)`` … for the series, ``var(--grid)``
and ``currentColor`` for the rest, so that a chart follows a dark theme.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from .scalars import Points

#: Colours that the page defines; more series use them again.
COLOURS = 10

WIDTH, HEIGHT = 460, 250
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 12, 42

DASHES = ' stroke-dasharray="5 4"'

#: Points drawn of one line; of more, the extremes of every stretch.
RESOLUTION = 400


@dataclass(frozen=True)
class Line:
    """One series of a chart.

    Attributes:
        name: For the legend.
        points: (x, y) pairs in order; NaN leaves a gap.
        colour: Index of a colour.
        dashed: Draw a broken line.
    """

    name: str
    points: Points
    colour: int = 0
    dashed: bool = False


@dataclass(frozen=True)
class Axis:
    """A linear or logarithmic scale from values to pixels."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    @classmethod
    def over(
        cls,
        values: Sequence[float],
        start: float,
        stop: float,
        log: bool = False,
        margin: float = 0.0,
    ) -> 'Axis':
        """Make the scale that shows all finite values."""
        finite = [v for v in values if math.isfinite(v)]
        log = log and bool(finite) and min(finite) > 0
        if log:
            finite = [math.log10(v) for v in finite]
        low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
        if high - low < 1e-9 * max(abs(low), abs(high), 1e-9):
            spread = 0.1 * abs(low) or 0.5
            low, high = low - spread, high + spread
        pad = margin * (high - low)
        return cls(low - pad, high + pad, start, stop, log)

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        if self.log:
            value = math.log10(value)
        share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.stop - self.start)

    def ticks(self, count: int) -> list[float]:
        """Return round values within the scale."""
        low, high = self.low, self.high
        if self.log:
            powers = range(math.ceil(low), math.floor(high) + 1)
            if len(powers) > 1:
                return [10.0**power for power in powers]
            low, high = 10**low, 10**high  # Less than two powers of ten.
        values = MaxNLocator(count).tick_values(low, high)
        return [float(v) for v in values if low <= v <= high]


def line_chart(
    title: str,
    x_label: str,
    y_label: str,
    lines: Sequence[Line],
    log: bool = False,
) -> str:
    """Draw series over a common x axis.

    Args:
        title: Says what is shown; also the text for screen readers.
        x_label: Of the horizontal axis.
        y_label: Of the vertical axis.
        lines: At least one.
        log: Logarithmic y axis, if all values are positive.

    Returns:
        A ``<figure>``.
    """
    thinned = [thin(line.points) for line in lines]
    xs = [x for points in thinned for x, _ in points]
    ys = [y for points in thinned for _, y in points]
    across = Axis.over(xs, LEFT, WIDTH - RIGHT)
    up = Axis.over(ys, HEIGHT - BOTTOM, TOP, log, margin=0.05)
    parts = _frame(across, up, x_label, y_label)
    for line, points in zip(lines, thinned, strict=True):
        dash = DASHES if line.dashed else ''
        for piece in _pieces(points, up.log):
            place = ' '.join(f'{across(x):.1f},{up(y):.1f}' for x, y in piece)
            parts.append(
                f'<polyline points="{place}" fill="none"{dash} '
                f'stroke="{_colour(line.colour)}" stroke-width="1.8" '
                'stroke-linejoin="round"/>'
            )
            if len(piece) <= 30:
                parts += [
                    _dot(across(x), up(y), line.colour, 2.6, f'{x:g}: {y:.4g}')
                    for x, y in piece
                ]
    summary = '; '.join(_in_words(line) for line in lines)
    legend = [(line.name, line.colour, line.dashed) for line in lines]
    return _figure(title, summary, parts, legend, (WIDTH, HEIGHT))


def scatter_chart(
    title: str,
    points: NDArray[np.float64],
    labels: Sequence[str],
) -> str:
    """Draw a map of samples, coloured by their label.

    Args:
        title: Says what is shown.
        points: N×2.
        labels: N names.

    Returns:
        A ``<figure>``.
    """
    width, height, edge = 460, 400, 14
    across = Axis.over(points[:, 0].tolist(), edge, width - edge)
    up = Axis.over(points[:, 1].tolist(), height - edge, edge)
    names = sorted(set(labels), key=_by_number)
    number = {name: i for i, name in enumerate(names)}
    parts = [
        _dot(across(x), up(y), number[label], 2.8, label)
        for (x, y), label in zip(points.tolist(), labels, strict=True)
    ]
    summary = f'{len(labels)} samples of {len(names)} classes'
    legend = [(name, number[name], False) for name in names[:COLOURS]]
    if len(names) > COLOURS:
        legend = []
    return _figure(title, summary, parts, legend, (width, height))


def thin(points: Points) -> Points:
    """Keep the lowest and the highest value of every stretch of a line."""
    step = -(-len(points) // RESOLUTION) * 2
    if step <= 2:
        return points
    kept = []
    for start in range(0, len(points), step):
        stretch = points[start : start + step]
        ends = {
            min(stretch, key=lambda p: p[1]),
            max(stretch, key=lambda p: p[1]),
        }
        gaps = {p for p in stretch if not math.isfinite(p[1])}
        kept += sorted(ends | gaps)
    return kept


def _pieces(points: Points, log: bool) -> list[list[tuple[float, float]]]:
    """Split a line where it has no value."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if math.isfinite(y) and not (log and y <= 0):
            pieces[-1].append((x, y))
        elif pieces[-1]:
            pieces.append([])
    return [piece for piece in pieces if piece]


def _frame(across: Axis, up: Axis, x_label: str, y_label: str) -> list[str]:
    """Grid, numbers and names of both axes."""
    parts = []
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    for value in up.ticks(5):
        y = up(value)
        parts.append(
            f'<line x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" '
            'stroke="var(--grid)"/>'
            f'<text x="{LEFT - 7}" y="{y + 3.5:.1f}" text-anchor="end">'
            f'{_number(value)}</text>'
        )
    for value in across.ticks(6):
        x = across(value)
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{bottom}" '
            f'y2="{bottom + 4}" stroke="var(--axis)"/>'
            f'<text x="{x:.1f}" y="{bottom + 17}" text-anchor="middle">'
            f'{_number(value)}</text>'
        )
    middle = (TOP + bottom) / 2
    parts.append(
        f'<line x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}" '
        'stroke="var(--axis)"/>'
        f'<text class="name" x="{(LEFT + right) / 2}" y="{HEIGHT - 7}" '
        f'text-anchor="middle">{escape(x_label)}</text>'
        f'<text class="name" x="13" y="{middle}" text-anchor="middle" '
        f'transform="rotate(-90 13 {middle})">{escape(y_label)}</text>'
    )
    return parts


def _figure(
    title: str,
    summary: str,
    parts: Sequence[str],
    legend: Sequence[tuple[str, int, bool]],
    size: tuple[int, int],
) -> str:
    label = escape(f'{title}. {summary}', quote=True)
    keys = ''.join(
        '<li><svg viewBox="0 0 22 8" aria-hidden="true"><line x1="0" x2="22" '
        f'y1="4" y2="4" stroke="{_colour(colour)}" stroke-width="3"'
        f'{DASHES if dashed else ""}/></svg>{escape(name)}</li>'
        for name, colour, dashed in legend
    )
    shown = f'<ul class="legend">{keys}</ul>' if len(legend) > 1 else ''
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption>'
        f'<svg role="img" viewBox="0 0 {size[0]} {size[1]}" '
        f'aria-label="{label}">{"".join(parts)}</svg>{shown}</figure>'
    )


def _in_words(line: Line) -> str:
    finite = [(x, y) for x, y in line.points if math.isfinite(y)]
    if not finite:
        return f'{line.name}: no finite value'
    (_, first), (_, last) = finite[0], finite[-1]
    return f'{line.name}: from {first:.4g} to {last:.4g}'


def _dot(x: float, y: float, colour: int, radius: float, text: str) -> str:
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" '
        f'fill="{_colour(colour)}"><title>{escape(text)}</title></circle>'
    )


def _colour(index: int) -> str:
    return f'var(--c{index % COLOURS})'


def _number(value: float) -> str:
    text = f'{value:.4g}'
    return '0' if text in ('-0', '0') else text.replace('-', '−')


def _by_number(name: str) -> tuple[int, float, str]:
    try:
        return 0, float(name), name
    except ValueError:
        return 1, 0.0, name
