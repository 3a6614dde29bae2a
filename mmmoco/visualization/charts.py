"""Line and scatter charts as SVG, to stand inside an HTML page.

Their colours are the page's: ``var(--c0)`` … for the series, ``var(--grid)``
and ``currentColor`` for the rest, so that a chart follows a dark theme.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from .scalars import Points
from .templates import COLOURS, TEMPLATES

WIDTH, HEIGHT = 460, 250
LEFT, RIGHT, TOP, BOTTOM = 72, 14, 12, 42

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


class Note(NamedTuple):
    """A sentence below a chart.

    Attributes:
        name: What it is about.
        text: The sentence.
        sick: Mark it.
        colour: Index of the colour of what it is about, if that has one.
    """

    name: str
    text: str
    sick: bool = False
    colour: int | None = None


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
    notes: Sequence[Note] | None = None,
) -> str:
    """Draw series over a common x axis.

    Args:
        title: Says what is shown; also the text for screen readers.
        x_label: Of the horizontal axis.
        y_label: Of the vertical axis.
        lines: At least one.
        log: Logarithmic y axis, if all values are positive.
        notes: What to read from it.

    Returns:
        A ``<figure>``.
    """
    thinned = [thin(line.points) for line in lines]
    xs = [x for points in thinned for x, _ in points]
    ys = [y for points in thinned for _, y in points]
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    across = Axis.over(xs, LEFT, right)
    up = Axis.over(ys, bottom, TOP, log, margin=0.05)
    return TEMPLATES.get_template('chart.html').render(
        title=title,
        summary='; '.join(map(_in_words, lines)),
        x_label=x_label,
        y_label=y_label,
        x_ticks=[(across(value), _number(value)) for value in across.ticks(6)],
        y_ticks=[(up(value), _number(value)) for value in up.ticks(5)],
        pieces=[
            (
                line,
                [(across(x), up(y)) for x, y in piece],
                # Where there are many, they would hide the line.
                [f'{x:g}: {y:.4g}' for x, y in piece]
                if len(piece) <= 30
                else (),
            )
            for line, points in zip(lines, thinned, strict=True)
            for piece in _pieces(points, up.log)
        ],
        dots=[],
        radius=2.6,
        legend=lines,
        notes=notes or (),
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        right=right,
        top=TOP,
        bottom=bottom,
    )


def scatter_chart(
    title: str, points: NDArray[np.float64], labels: Sequence[str]
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
    return TEMPLATES.get_template('chart.html').render(
        title=title,
        summary=f'{len(labels)} samples of {len(names)} classes',
        pieces=[],
        dots=[
            (across(x), up(y), number[label], label)
            for (x, y), label in zip(points.tolist(), labels, strict=True)
        ],
        radius=2.8,
        legend=[Line(name, (), i) for name, i in number.items()]
        if len(names) <= COLOURS
        else [],
        notes=(),
        width=width,
        height=height,
    )


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


def _in_words(line: Line) -> str:
    finite = [(x, y) for x, y in line.points if math.isfinite(y)]
    if not finite:
        return f'{line.name}: no finite value'
    (_, first), (_, last) = finite[0], finite[-1]
    return f'{line.name}: from {first:.4g} to {last:.4g}'


def _number(value: float) -> str:
    text = f'{value:.4g}'
    return '0' if text in ('-0', '0') else text.replace('-', '−')


def _by_number(name: str) -> tuple[int, float, str]:
    try:
        return 0, float(name), name
    except ValueError:
        return 1, 0.0, name
