"""The report: runs in, one HTML page out that needs nothing else."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .charts import Line, Note, line_chart, scatter_chart
from .scalars import Points, Series
from .templates import TEMPLATES


class Picture(NamedTuple):
    """A saved PNG.

    Attributes:
        caption: Says what it shows.
        png: The bytes of the file.
    """

    caption: str
    png: bytes


class FeatureMap(NamedTuple):
    """Features mapped to the plane.

    Attributes:
        caption: Method and source.
        points: N×2.
        labels: N class names.
    """

    caption: str
    points: NDArray[np.float64]
    labels: Sequence[str]


class Finding(NamedTuple):
    """What a monitor of a run shows.

    Attributes:
        text: A sentence.
        sick: It is not what a healthy run shows.
    """

    text: str
    sick: bool = False


@dataclass(frozen=True)
class RunRecord:
    """What is known of one run; whatever is missing stays empty.

    Attributes:
        name: Tells it from the others.
        scalars: Curves by name.
        results: Lines of ``results.jsonl``.
        summary: The settings that matter most, by name.
        settings: All settings by their path in the config.
        amounts: Images, and what the training took.
        verdict: What the monitors say together.
        findings: What each says, by the scalar its chart begins with.
        config: The resolved config as text.
        environment: Versions and hardware by name.
        pictures: Saved pictures.
        feature_map: Map of features.
        notes: What could not be read, and why.
    """

    name: str
    scalars: Series = field(default_factory=dict)
    results: Sequence[Mapping[str, Any]] = ()
    summary: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    amounts: Mapping[str, str] = field(default_factory=dict)
    verdict: Finding | None = None
    findings: Mapping[str, Finding] = field(default_factory=dict)
    config: str = ''
    environment: Mapping[str, Any] = field(default_factory=dict)
    pictures: Sequence[Picture] = ()
    feature_map: FeatureMap | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Chart:
    """Which scalars one chart shows; the first that exists gives its line.

    Attributes:
        title: Says what is shown.
        y_label: Of the vertical axis.
        scalars: Names in the legend, by scalar.
        healthy: What a healthy run shows.
        log: Logarithmic, if all values are positive.
        rest: Show 1 − y, as far as it is above 0.
        x_label: Of the horizontal axis.
    """

    title: str
    y_label: str
    scalars: Mapping[str, str]
    healthy: str = ''
    log: bool = False
    rest: bool = False
    x_label: str = 'iteration'


CURVES = (
    Chart(
        'Training loss',
        'loss',
        {'loss': 'loss', 'chance': 'chance'},
        'Falls below chance: log(K + 1) for K negatives, the loss of a model '
        'that tells nothing. At first it may rise, while the queue fills.',
    ),
    Chart(
        'k-NN accuracy on held-out images',
        'accuracy (%)',
        {'knn/top1': 'top-1', 'knn/top5': 'top-5'},
        x_label='epoch',
    ),
    Chart('Learning rate', 'lr', {'lr': 'lr'}),
    Chart(
        'Momentum of the key encoder',
        '1 − m',
        {'m': '1 − m'},
        log=True,
        rest=True,
    ),
)
MONITORS = (
    Chart(
        'Similarity to the positive and the negatives',
        'cosine',
        {
            'pos_sim': 'positive',
            'hard_sim': 'mixtures of the hardest (mean)',
            'dense_pos_sim': 'positive of a cell',
            'dense_neg_sim': 'negatives of a cell (mean)',
            'neg_sim': 'negatives (mean)',
        },
        'Apart, the negatives near 0.',
    ),
    Chart(
        'Contrastive accuracy',
        'share of queries',
        {
            'top1': 'positive is the nearest key',
            'dense_top1': 'the same for cells',
        },
        'Rises.',
    ),
    Chart(
        'Standard deviation of the features, times √C',
        '1: spread out, 0: collapsed',
        {'feature_std': 'features'},
        'Near 1; at 0 all features are the same.',
    ),
    Chart(
        'Effective rank of the features',
        'directions in use',
        {'feature_rank': 'features'},
        'Far above 2.',
    ),
    Chart(
        'Oldest keys against the key encoder of now',
        'cosine',
        {'old_key_sim': 'oldest keys'},
        'Near 1.',
    ),
    Chart(
        'Norm of the gradient',
        'L2 norm',
        {'grad_norm': 'norm'},
        'Finite, and without leaps.',
        log=True,
    ),
    Chart(
        'Throughput',
        'images per second',
        {'images_per_s': 'images/s'},
        'Steady.',
    ),
    Chart(
        'Share of the time spent waiting for data',
        'share',
        {'data_wait': 'waiting'},
        'Near 0.',
    ),
)

#: Rows of a table of settings; two runs may have nothing in common.
MOST_SETTINGS = 200


def render_report(runs: Sequence[RunRecord], made: str = '') -> str:
    """Return the page for one run, or for several side by side.

    Every text that comes from a run is escaped; the page's own policy
    forbids scripts and any request over the network.

    Args:
        runs: At least one.
        made: When and by what the report was made.
    """
    newest, earlier = _evaluations(runs)
    return TEMPLATES.get_template('report.html').render(
        runs=runs,
        several=len(runs) > 1,
        made=made,
        notes=[f'{run.name}: {note}' for run in runs for note in run.notes],
        tiles=[_key_figures(run) for run in runs],
        training=_charts(CURVES, runs),
        monitors=_charts(MONITORS, runs),
        newest=newest,
        earlier=earlier,
        maps=[
            scatter_chart(*run.feature_map) if run.feature_map else ''
            for run in runs
        ],
        verdicts=[run.verdict for run in runs],
        differing=_differing(runs),
        most=MOST_SETTINGS,
        configuration=_settings([run.summary for run in runs]),
        environment=_settings([run.environment for run in runs]),
    )


def _key_figures(run: RunRecord) -> list[tuple[str, str, bool]]:
    figures = []
    series = run.scalars
    unit = 'epoch' if 'epoch' in series else 'iteration'
    points = _finite(series.get('knn/top1', []))
    if points:
        figures.append(('k-NN top-1, last', f'{points[-1][1]:.1f} %', False))
        at, best = max(points, key=lambda point: point[1])
        figures.append((f'best, at {unit} {at:g}', f'{best:.1f} %', False))
    if series.get('loss'):
        step, loss = series['loss'][-1]
        figures.append(('last loss', f'{loss:.3f}', not math.isfinite(loss)))
        figures.append(('iterations', f'{step:,.0f}', False))
    figures += [(name, text, False) for name, text in run.amounts.items()]
    speed = _finite(series.get('images_per_s', []))
    if speed:
        middle = sorted(value for _, value in speed)[len(speed) // 2]
        figures.append(('images/s, median', f'{middle:,.0f}', False))
    if series.get('alarms'):
        last = series['alarms'][-1][1]
        alarms = int(last) if math.isfinite(last) else 0
        figures.append(('alarms of the monitors', str(alarms), alarms > 0))
    return figures


def _charts(charts: Iterable[Chart], runs: Sequence[RunRecord]) -> list[str]:
    return [figure for chart in charts for figure in _chart(chart, runs)]


def _chart(chart: Chart, runs: Sequence[RunRecord]) -> list[str]:
    """One figure for each unit that the runs count in."""
    lines: dict[str, list[Line]] = {}
    notes: dict[str, list[Note]] = {}
    several, chances = len(runs) > 1, list[float]()
    for r, run in enumerate(runs):
        unit = chart.x_label if 'epoch' in run.scalars else 'iteration'
        for s, (scalar, label) in enumerate(chart.scalars.items()):
            points: Points = run.scalars.get(scalar, [])
            if chart.rest:
                points = [(x, 1 - y if y < 1 else math.nan) for x, y in points]
            if not _finite(points):
                continue
            line = Line(label, points, s, dashed=scalar == 'chance')
            if several:
                name = run.name
                if len(chart.scalars) > 1:
                    name += f': {label}'
                line = Line(name, points, colour=r, dashed=s > 0)
                if scalar == 'chance' and points[-1][1] in chances:
                    continue  # It would lie on that of another run.
                chances.append(points[-1][1])
            lines.setdefault(unit, []).append(line)
        finding = run.findings.get(next(iter(chart.scalars)))
        if finding:
            name = run.name if several else 'This run'
            note = Note(name, *finding, r if several else None)
            notes.setdefault(unit, []).append(note)
    if chart.healthy:
        for said in notes.values():
            said.insert(0, Note('Healthy', chart.healthy))
    return [
        line_chart(
            chart.title, unit, chart.y_label, drawn, chart.log, notes.get(unit)
        )
        for unit, drawn in lines.items()
    ]


#: A row of the table of results: number of the run; class and text of cells.
Row = tuple[int, list[tuple[str, str]]]


def _evaluations(runs: Sequence[RunRecord]) -> tuple[list[Row], list[Row]]:
    """The last of what was evaluated again and again, and the earlier ones."""
    newest: list[Row] = []
    earlier: list[Row] = []
    for i, run in enumerate(runs):
        last = {_kind(result): n for n, result in enumerate(run.results)}
        for n, result in enumerate(run.results):
            group = newest if n == last[_kind(result)] else earlier
            group.append((i, _cells(result)))
    return newest, earlier


def _kind(result: Mapping[str, Any]) -> str:
    """What two evaluations of a model in training have in common."""
    if result.get('checkpoint'):
        return str(id(result))
    return f'{result.get("task")} {_protocol(result.get("protocol"))}'


def _cells(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Our figures beside those of the authors, clearly told apart."""
    metrics = _mapping(result.get('metrics'))
    published = _mapping(result.get('published'))
    source = ', '.join(
        str(value) if name == 'source' else f'{name}: {value}'
        for name, value in published.items()
        if name not in metrics
    )
    seed = result.get('seed')
    protocol = [_protocol(result.get('protocol')), *_doubts(result)]
    theirs = {n: v for n, v in published.items() if n in metrics}
    return [
        ('', str(result.get('task') or '')),
        ('protocol', '; '.join(protocol)),
        ('', _origin(result)),
        ('ours', _figures(metrics)),
        ('published', _figures(theirs)),
        ('', source),
        ('', '' if seed is None else str(seed)),
        ('', str(result.get('time') or '').replace('T', ' ')[:16]),
    ]


def _protocol(protocol: Any) -> str:
    if not isinstance(protocol, Mapping):
        return str(protocol or '')
    return ', '.join(
        f'{name}={value:g}' if isinstance(value, float) else f'{name}={value}'
        for name, value in protocol.items()
    )


def _doubts(result: Mapping[str, Any]) -> list[str]:
    """What was remarked and makes a figure doubtful."""
    remarks = _mapping(result.get('remarks'))
    eyes = remarks.get('eyes')
    doubts = [str(line) for line in eyes] if isinstance(eyes, list) else []
    counted = {
        'queries_in_bank': 'queries stand in the bank',
        'unreadable_bank': 'images of the bank could not be read',
        'unreadable_query': 'queries could not be read',
    }
    doubts += [
        f'{remarks[name]} {text}'
        for name, text in counted.items()
        if remarks.get(name)
    ]
    return [f'BUT {doubt}' for doubt in doubts]


def _origin(result: Mapping[str, Any]) -> str:
    epoch = result.get('epoch')
    after = f'epoch {epoch}' if epoch is not None else ''
    file = str(result.get('checkpoint') or '').rsplit('/', 1)[-1]
    if not file:
        return f'{after} (in training)' if after else 'in training'
    return f'{file} ({after})' if after else file


def _figures(metrics: Mapping[str, Any]) -> str:
    return ', '.join(
        f'{name} {value:.2f}'
        if isinstance(value, int | float)
        else f'{name} {value}'
        for name, value in metrics.items()
    )


def _settings(
    columns: Sequence[Mapping[str, Any]],
) -> list[tuple[str, list[str], bool]]:
    """Name, value of each run, and whether they differ."""
    names = dict.fromkeys(name for column in columns for name in column)
    rows = {n: [str(column.get(n, '–')) for column in columns] for n in names}
    return [(n, row, len({*row}) > 1) for n, row in rows.items()]


def _differing(runs: Sequence[RunRecord]) -> list[tuple[str, list[str], bool]]:
    """The settings that are not the same in all runs that have a config."""
    if not all(run.settings for run in runs):
        return []
    rows = _settings([run.settings for run in runs])
    return [(name, row, False) for name, row, differ in rows if differ]


def _finite(points: Points) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if math.isfinite(y)]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
