import math
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from mmmoco.visualization.charts import (
    Axis,
    Line,
    line_chart,
    scatter_chart,
    thin,
)


def parsed(markup):
    return ElementTree.fromstring(markup)


def polylines(chart):
    return [
        [tuple(map(float, p.split(','))) for p in line.get('points').split()]
        for line in parsed(chart).iter('polyline')
    ]


def test_a_line_stands_where_its_values_are():
    chart = line_chart('t', 'x', 'y', [Line('a', [(0, 1), (10, 3), (20, 2)])])
    ((left, peak, right),) = polylines(chart)
    assert left[0] < peak[0] < right[0]
    assert peak[0] - left[0] == pytest.approx(right[0] - peak[0], abs=0.2)
    # Up is small.
    assert peak[1] < right[1] < left[1]
    assert right[1] - peak[1] == pytest.approx(left[1] - right[1], abs=0.2)


def test_gaps_and_logarithms():
    points = [(0, 1.0), (1, 10.0), (2, math.nan), (3, 100.0), (4, 1e3)]
    chart = line_chart('t', 'x', 'y', [Line('a', points)], log=True)
    first, second = polylines(chart)
    assert len(first) == len(second) == 2
    rise = [a[1] - b[1] for a, b in (first, second)]
    assert rise[0] == pytest.approx(rise[1], abs=0.2)
    assert {'10', '100', '1000'} <= {
        t.text for t in parsed(chart).iter('text')
    }


def test_nothing_finite_and_nothing_moving():
    chart = line_chart('t', 'x', 'y', [Line('a', [(0, math.nan)])])
    assert polylines(chart) == [] and 'no finite value' in chart
    ((point,),) = polylines(line_chart('t', 'x', 'y', [Line('a', [(5, 0.0)])]))
    assert all(map(math.isfinite, point))


def test_a_chart_describes_itself():
    lines = [Line('one', [(0, 1), (5, 2.5)]), Line('two', [(0, 1)], colour=1)]
    tree = parsed(line_chart('Loss <now>', 'iteration', 'nats', lines))
    (image,) = [e for e in tree.iter('svg') if e.get('role') == 'img']
    label = image.get('aria-label')
    assert 'Loss <now>' in label and 'one: from 1 to 2.5' in label
    texts = {t.text for t in tree.iter('text')}
    assert {'iteration', 'nats'} <= texts
    assert tree.find('figcaption').text == 'Loss <now>'
    assert [li.find('svg').tail for li in tree.iter('li')] == ['one', 'two']


def test_long_lines_keep_their_extremes():
    points = [(i, math.sin(i / 50)) for i in range(20000)]
    points[777] = (777, 9.0)
    points[9000] = (9000, -9.0)
    points[15000] = (15000, math.nan)
    kept = thin(points)
    assert len(kept) < 1000 and kept == sorted(kept, key=lambda p: p[0])
    assert (777, 9.0) in kept and (9000, -9.0) in kept
    assert any(math.isnan(y) for _, y in kept)


@pytest.mark.parametrize('low, high', [(0, 1), (-3, 1e-3), (5, 5), (2, 1e9)])
@pytest.mark.parametrize('log', [False, True])
def test_ticks_stand_within_the_axis(low, high, log):
    axis = Axis.over([low, high], 0, 100, log, margin=0.05)
    ticks = axis.ticks(5)
    assert 2 <= len(ticks) <= 11
    assert all(-0.01 <= axis(tick) <= 100.01 for tick in ticks)


def test_a_map_has_a_point_for_every_sample():
    points = np.array([[0.0, 0.0], [1.0, 2.0], [2.0, 1.0]])
    tree = parsed(scatter_chart('map', points, ['10', '9', '9']))
    circles = list(tree.iter('circle'))
    assert [c.find('title').text for c in circles] == ['10', '9', '9']
    assert circles[1].get('fill') == circles[2].get('fill')
    assert circles[0].get('fill') != circles[1].get('fill')
    # By number, not by letter.
    assert [li.find('svg').tail for li in tree.iter('li')] == ['9', '10']
    label = tree.find('svg').get('aria-label')
    assert '3 samples of 2 classes' in label
