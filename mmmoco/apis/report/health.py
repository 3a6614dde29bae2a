"""What the monitors of a run say, in words."""

import math
from collections.abc import Callable, Mapping
from statistics import median

from mmmoco.engine.collapse import CollapseWatch
from mmmoco.visualization.report import Finding
from mmmoco.visualization.scalars import Points, Series

#: A cosine of the oldest keys below it, and a share of waiting above it.
STALE, WAITING = 0.8, 0.2

#: Positives and negatives that lie closer are hardly told apart.
APART = 0.1

#: Negatives that are more similar to the queries lie in one corner.
CROWDED = 0.5

LOW_RANK = 2.0


def judge(scalars: Series) -> dict[str, Finding]:
    """Say what each monitor shows, by the scalar that it begins with."""
    found = {}
    for name in _JUDGES:
        points = scalars.get(name, [])
        if not points:
            continue
        broken = [x for x, y in points if not math.isfinite(y)]
        if broken:
            text = (
                f'{name} is not finite at {len(broken)} of {len(points)} '
                f'lines of the log, first at iteration {broken[0]:g}.'
            )
            found[name] = Finding(text, True)
            continue
        found[name] = _JUDGES[name](*_ends(points), scalars)
    return found


def verdict(found: Mapping[str, Finding]) -> Finding:
    """Sum up what the monitors show."""
    sick = [finding.text for finding in found.values() if finding.sick]
    if sick:
        return Finding(f'Sick: {" ".join(sick)}', True)
    if not found:
        return Finding('No monitor wrote anything.')
    if 'feature_std' not in found:
        return Finding(
            'Nothing is sick in what was logged, but that is not all. '
            'MonitorHook watches for collapse.'
        )
    return Finding('Healthy: every monitor is where it should be.')


def _ends(points: Points) -> tuple[float, float]:
    """Return the means of the first tenth and of the last."""
    values = [value for _, value in points]
    part = -(-len(values) // 10)
    # fmean raises where a sum of a foreign log's values is too large.
    return sum(values[:part]) / part, sum(values[-part:]) / part


def _loss(first: float, last: float, scalars: Series) -> Finding:
    text = f'From {first:.2f} to {last:.2f}'
    chances = [y for _, y in scalars.get('chance', []) if math.isfinite(y)]
    if not chances:
        return Finding(f'{text}.')
    chance = chances[-1]
    if last >= 0.98 * chance:
        return Finding(
            f'{text}: no better than chance ({chance:.2f}), the model tells '
            'nothing apart.',
            True,
        )
    return Finding(f'{text}, below chance ({chance:.2f}).')


def _similarity(_: float, last: float, scalars: Series) -> Finding:
    others = scalars.get('neg_sim', [])
    if not others or not math.isfinite(others[-1][1]):
        return Finding(f'Positives at {last:.2f}.')
    negative = _ends(others)[1]
    text = f'Positives at {last:.2f}, negatives at {negative:.2f}'
    if last - negative < APART:
        return Finding(f'{text}: hardly told apart.', True)
    if negative > CROWDED:
        return Finding(f'{text}: the negatives are not near 0.', True)
    return Finding(f'{text}: told apart.')


def _top1(first: float, last: float, _: Series) -> Finding:
    return Finding(f'From {first:.1%} to {last:.1%} of the queries.')


def _gradient(first: float, last: float, _: Series) -> Finding:
    return Finding(f'Finite; from {first:.3g} to {last:.3g}.')


def _speed(_: float, __: float, scalars: Series) -> Finding:
    values = [y for _, y in scalars['images_per_s']]
    usual, least = median(values), min(values)
    return Finding(f'{usual:,.0f} at most times, {least:,.0f} at the slowest.')


def _alarms(_: float, __: float, scalars: Series) -> Finding:
    alarms = scalars['alarms']
    count = alarms[-1][1]
    if not count:
        return Finding('No alarm.')
    first = next(step for step, raised in alarms if raised)
    return Finding(
        f'The monitors raised {count:.0f} alarm(s), the first by iteration '
        f'{first:.0f}; the log says which and what to look at.',
        True,
    )


def _limit(
    is_sick: Callable[[float], bool], sick: str, sound: str
) -> Callable[[float, float, Series], Finding]:
    """Judge by the last values alone."""

    def judge_last(_: float, last: float, __: Series) -> Finding:
        text = sick if is_sick(last) else sound
        return Finding(text.format(last), is_sick(last))

    return judge_last


_JUDGES = {
    'loss': _loss,
    'pos_sim': _similarity,
    'top1': _top1,
    'feature_std': _limit(
        lambda last: last < CollapseWatch.min_spread,
        'Collapsed: {:.2f}, all images get nearly the same features.',
        '{:.2f} at the end.',
    ),
    'feature_rank': _limit(
        lambda last: last < LOW_RANK,
        'Collapsed: {:.1f}, the features lie along one direction.',
        '{:.1f} directions at the end.',
    ),
    'old_key_sim': _limit(
        lambda last: last < STALE,
        '{:.2f}: the oldest keys are stale; a larger m or a shorter queue '
        'keeps them fresh.',
        '{:.2f}: the keys in the queue agree.',
    ),
    'grad_norm': _gradient,
    'images_per_s': _speed,
    'data_wait': _limit(
        lambda last: last > WAITING,
        'Waits for images {:.0%} of the time: give it more workers.',
        '{:.1%} at the end.',
    ),
    'alarms': _alarms,
}
