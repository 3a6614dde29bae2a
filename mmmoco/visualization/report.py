"""The report: runs in, one HTML page out that needs nothing else."""

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .charts import COLOURS, Line, line_chart, scatter_chart
from .scalars import Points, Series


@dataclass(frozen=True)
class Picture:
    """A saved PNG.

    Attributes:
        caption: Says what it shows.
        png: The bytes of the file.
    """

    caption: str
    png: bytes


@dataclass(frozen=True)
class FeatureMap:
    """Features mapped to the plane.

    Attributes:
        caption: Method and source.
        points: N×2.
        labels: N class names.
    """

    caption: str
    points: NDArray[np.float64]
    labels: Sequence[str]


@dataclass(frozen=True)
class RunRecord:
    """What is known of one run; whatever is missing stays empty.

    Attributes:
        name: Tells it from the others.
        scalars: Curves by name.
        results: Lines of ``results.jsonl``.
        summary: Settings by name.
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
    config: str = ''
    environment: Mapping[str, Any] = field(default_factory=dict)
    pictures: Sequence[Picture] = ()
    feature_map: FeatureMap | None = None
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Chart:
    """Which scalars one chart shows; the first that exists gives its line."""

    title: str
    y_label: str
    scalars: Mapping[str, str]
    log: bool = False
    x_label: str = 'iteration'


CURVES = (
    Chart('Training loss', 'loss', {'loss': 'loss'}),
    Chart(
        'k-NN accuracy on held-out images',
        'accuracy (%)',
        {'knn/top1': 'top-1', 'knn/top5': 'top-5'},
        x_label='epoch',
    ),
    Chart('Learning rate', 'lr', {'lr': 'lr'}),
    Chart('Momentum of the key encoder', 'm', {'m': 'm'}),
)
MONITORS = (
    Chart(
        'Similarity to the positive and the negatives',
        'cosine',
        {'pos_sim': 'positive', 'neg_sim': 'negatives (mean)'},
    ),
    Chart(
        'Contrastive accuracy',
        'share of queries',
        {'top1': 'positive is the nearest key'},
    ),
    Chart(
        'Standard deviation of the features, times √C',
        '1: spread out, 0: collapsed',
        {'feature_std': 'features'},
    ),
    Chart(
        'Effective rank of the features',
        'directions in use',
        {'feature_rank': 'features'},
    ),
    Chart(
        'Oldest keys against the key encoder of now',
        'cosine',
        {'old_key_sim': 'oldest keys'},
    ),
    Chart('Norm of the gradient', 'L2 norm', {'grad_norm': 'norm'}, log=True),
    Chart('Throughput', 'images per second', {'images_per_s': 'images/s'}),
    Chart(
        'Share of the time spent waiting for data',
        'share',
        {'data_wait': 'waiting'},
    ),
)


def render_report(runs: Sequence[RunRecord], made: str = '') -> str:
    """Return the page for one run, or for several side by side.

    Every text that comes from a run is escaped; the page's own policy
    forbids scripts and any request over the network.

    Args:
        runs: At least one.
        made: When and by what the report was made.
    """
    title = ' · '.join(run.name for run in runs)
    sections = [
        _notes(runs),
        _tiles(runs),
        _charts('Training', CURVES, runs),
        _charts('Monitors', MONITORS, runs),
        _evaluations(runs),
        _pictures(runs),
        _settings('Configuration', runs, [run.summary for run in runs]),
        _configs(runs),
        _settings('Environment', runs, [run.environment for run in runs]),
    ]
    shown = [(name, body) for name, body in sections if body]
    links = ''.join(
        f'<a href="#{_anchor(name)}">{name}</a>' for name, _ in shown if name
    )
    body = ''.join(
        f'<section id="{_anchor(name)}"><h2>{name}</h2>{content}</section>'
        if name
        else content
        for name, content in shown
    )
    kind = 'Run report' if len(runs) == 1 else f'Report of {len(runs)} runs'
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        '<meta name="color-scheme" content="light dark">'
        '<meta http-equiv="Content-Security-Policy" content="'
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
        f'<title>{escape(title)}</title><style>{STYLE}</style></head><body>'
        f'<header><p class="kind">{kind}</p><h1>{escape(title)}</h1>'
        f'<p class="made">{escape(made)}</p><nav>{links}</nav></header>'
        f'<main>{body}</main></body></html>\n'
    )


Section = tuple[str, str]


def _notes(runs: Sequence[RunRecord]) -> Section:
    lines = [(run.name, note) for run in runs for note in run.notes]
    if not lines:
        return '', ''
    items = ''.join(
        f'<li>{escape(f"{name}: {note}")}</li>' for name, note in lines
    )
    return '', f'<ul class="notes">{items}</ul>'


def _tiles(runs: Sequence[RunRecord]) -> Section:
    """The figures that everybody looks for first."""
    rows = []
    for i, run in enumerate(runs):
        found = _key_figures(run)
        tiles = ''.join(
            f'<div class="tile{" bad" if bad else ""}"><b>{escape(value)}</b>'
            f'<span>{escape(name)}</span></div>'
            for name, value, bad in found
        )
        head = _run_name(runs, i) if len(runs) > 1 else ''
        rows.append(f'{head}<div class="tiles">{tiles}</div>')
    return '', ''.join(rows)


def _key_figures(run: RunRecord) -> list[tuple[str, str, bool]]:
    figures = []
    series = run.scalars
    unit = 'epoch' if 'epoch' in series else 'iteration'
    if series.get('knn/top1'):
        points = _finite(series['knn/top1'])
        if points:
            figures.append(
                ('k-NN top-1, last', f'{points[-1][1]:.1f} %', False)
            )
            best = max(points, key=lambda p: p[1])
            figures.append(
                (f'best, at {unit} {best[0]:g}', f'{best[1]:.1f} %', False)
            )
    if series.get('loss'):
        step, loss = series['loss'][-1]
        figures.append(('last loss', f'{loss:.3f}', not math.isfinite(loss)))
        figures.append(('iterations', f'{step:,.0f}', False))
    speed = _finite(series.get('images_per_s', []))
    if speed:
        middle = sorted(value for _, value in speed)[len(speed) // 2]
        figures.append(('images/s, median', f'{middle:,.0f}', False))
    if series.get('alarms'):
        last = series['alarms'][-1][1]
        alarms = int(last) if math.isfinite(last) else 0
        figures.append(('alarms of the monitors', str(alarms), alarms > 0))
    return figures


def _charts(
    title: str, charts: Iterable[Chart], runs: Sequence[RunRecord]
) -> Section:
    drawn = [figure for chart in charts for figure in _chart(chart, runs)]
    return title, _grid(drawn)


def _chart(chart: Chart, runs: Sequence[RunRecord]) -> list[str]:
    """One figure for each unit that the runs count in."""
    lines: dict[str, list[Line]] = {}
    for r, run in enumerate(runs):
        unit = chart.x_label if 'epoch' in run.scalars else 'iteration'
        for s, (scalar, label) in enumerate(chart.scalars.items()):
            points: Points = run.scalars.get(scalar, [])
            if not _finite(points):
                continue
            line = Line(label, points, colour=s)
            if len(runs) > 1:
                several = len(chart.scalars) > 1
                name = f'{run.name}: {label}' if several else run.name
                line = Line(name, points, colour=r, dashed=s > 0)
            lines.setdefault(unit, []).append(line)
    return [
        line_chart(chart.title, unit, chart.y_label, drawn, chart.log)
        for unit, drawn in lines.items()
    ]


def _evaluations(runs: Sequence[RunRecord]) -> Section:
    """Our figures beside those of the authors, clearly told apart."""
    newest: list[str] = []
    earlier: list[str] = []
    for i, run in enumerate(runs):
        last = {_kind(result): n for n, result in enumerate(run.results)}
        for n, result in enumerate(run.results):
            # Of what was evaluated again and again in training, the last.
            group = newest if n == last[_kind(result)] else earlier
            place = _swatch(i) + escape(run.name) if len(runs) > 1 else None
            group.append(_row(_cells(result), place))
    if not newest:
        return '', ''
    note = (
        '<p class="hint">“Ours” was measured by this code; “published” is '
        'what the authors of the method report for the same protocol, and '
        'is empty where they report none.</p>'
    )
    hidden = ''
    if earlier:
        count = f'{len(earlier)} earlier evaluations in training'
        hidden = (
            f'<details><summary>{count}</summary>'
            f'{_results_table(earlier, len(runs) > 1)}</details>'
        )
    table = _results_table(newest, len(runs) > 1)
    return 'Evaluations', note + table + hidden


def _results_table(rows: Sequence[str], name_runs: bool) -> str:
    names = ['task', 'protocol', 'checkpoint', 'ours (%)', 'published (%)']
    names += ['source of published', 'seed', 'time']
    if name_runs:
        names.insert(0, 'run')
    head = ''.join(f'<th scope="col">{name}</th>' for name in names)
    return (
        f'<div class="wide"><table class="results"><thead><tr>{head}</tr>'
        f'</thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def _kind(result: Mapping[str, Any]) -> str:
    """What two evaluations of a model in training have in common."""
    if result.get('checkpoint'):
        return str(id(result))
    return f'{result.get("task")} {_protocol(result.get("protocol"))}'


def _cells(result: Mapping[str, Any]) -> list[str]:
    metrics = _mapping(result.get('metrics'))
    published = _mapping(result.get('published'))
    source = ', '.join(
        str(value) if name == 'source' else f'{name}: {value}'
        for name, value in published.items()
        if name not in metrics
    )
    seed = result.get('seed')
    return [
        str(result.get('task') or ''),
        '; '.join([_protocol(result.get('protocol')), *_doubts(result)]),
        _origin(result),
        _figures(metrics),
        _figures({n: v for n, v in published.items() if n in metrics}),
        source,
        '' if seed is None else str(seed),
        str(result.get('time') or '').replace('T', ' ')[:16],
    ]


def _row(cells: Sequence[str], run: str | None) -> str:
    classes = {
        1: ' class="protocol"',
        3: ' class="ours"',
        4: ' class="published"',
    }
    shown = ''.join(
        f'<td{classes.get(i, "")}>{escape(cell) or "–"}</td>'
        for i, cell in enumerate(cells)
    )
    first = f'<td>{run}</td>' if run is not None else ''
    return f'<tr>{first}{shown}</tr>'


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


def _pictures(runs: Sequence[RunRecord]) -> Section:
    parts = []
    for i, run in enumerate(runs):
        drawn = []
        if run.feature_map is not None:
            seen = run.feature_map
            drawn.append(scatter_chart(seen.caption, seen.points, seen.labels))
        for picture in run.pictures:
            data = base64.b64encode(picture.png).decode('ascii')
            caption = escape(picture.caption, quote=True)
            drawn.append(
                f'<figure class="picture"><figcaption>{caption}</figcaption>'
                f'<img alt="{caption}" src="data:image/png;base64,{data}">'
                '</figure>'
            )
        if drawn:
            head = _run_name(runs, i) if len(runs) > 1 else ''
            parts.append(head + _grid(drawn))
    return 'Views, neighbours and features', ''.join(parts)


def _settings(
    title: str,
    runs: Sequence[RunRecord],
    columns: Sequence[Mapping[str, Any]],
) -> Section:
    """One row a setting, one column a run; differing rows are marked."""
    names = dict.fromkeys(name for column in columns for name in column)
    if not names:
        return title, ''
    rows = []
    for name in names:
        values = [str(column.get(name, '–')) for column in columns]
        mark = ' class="differs"' if len(set(values)) > 1 else ''
        cells = ''.join(f'<td>{escape(value)}</td>' for value in values)
        rows.append(
            f'<tr{mark}><th scope="row">{escape(str(name))}</th>{cells}</tr>'
        )
    head = ''
    if len(runs) > 1:
        heads = ''.join(
            f'<th scope="col">{_swatch(i)}{escape(run.name)}</th>'
            for i, run in enumerate(runs)
        )
        head = f'<thead><tr><th></th>{heads}</tr></thead>'
    return title, (
        f'<div class="wide"><table>{head}<tbody>{"".join(rows)}</tbody>'
        '</table></div>'
    )


def _configs(runs: Sequence[RunRecord]) -> Section:
    parts = [
        f'<details><summary>Whole config of {escape(run.name)}</summary>'
        f'<pre>{escape(run.config)}</pre></details>'
        for run in runs
        if run.config
    ]
    return '', ''.join(parts)


def _run_name(runs: Sequence[RunRecord], index: int) -> str:
    return f'<h3>{_swatch(index)}{escape(runs[index].name)}</h3>'


def _swatch(index: int) -> str:
    colour = f'var(--c{index % COLOURS})'
    return f'<i class="swatch" style="background:{colour}"></i>'


def _grid(parts: Sequence[str]) -> str:
    return f'<div class="grid">{"".join(parts)}</div>' if parts else ''


def _finite(points: Points) -> list[tuple[float, float]]:
    return [(x, y) for x, y in points if math.isfinite(y)]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _anchor(name: str) -> str:
    return ''.join(c if c.isalnum() else '-' for c in name.lower())


STYLE = """
:root { --paper: #f6f7f9; --card: #ffffff; --ink: #1c2430; --muted: #5c6674;
  --grid: #e3e7ec; --axis: #9aa4b0; --accent: #1f6feb; --bad: #c62828;
  --mark: #fff4d6;
  --c0: #1f6feb; --c1: #d9640a; --c2: #168a5b; --c3: #b8348c; --c4: #6f4fd0;
  --c5: #8d6e00; --c6: #0b8aa0; --c7: #c93545; --c8: #5b6b7d; --c9: #7a9a01; }
@media (prefers-color-scheme: dark) { :root { --paper: #11151b;
  --card: #1a2029; --ink: #e6eaf0; --muted: #9aa6b5; --grid: #2b333f;
  --axis: #5d6978; --accent: #6ea8ff; --bad: #ff7b72; --mark: #3a321c;
  --c0: #6ea8ff; --c1: #ff9d57; --c2: #4cc793; --c3: #ef83cb; --c4: #b09bff;
  --c5: #d8b93a; --c6: #4fc7dc; --c7: #ff8189; --c8: #a3b1c2;
  --c9: #b9d748; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif; }
header, main { max-width: 1180px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 32px; }
.kind { margin: 0; color: var(--muted); font-size: 13px;
  letter-spacing: .04em; }
h1 { margin: 2px 0 0; font-size: 28px; line-height: 1.25;
  overflow-wrap: anywhere; }
h2 { margin: 40px 0 12px; font-size: 19px; }
h3 { margin: 18px 0 8px; font-size: 15px; overflow-wrap: anywhere; }
.made, .hint { margin: 4px 0 0; color: var(--muted); font-size: 13px; }
.hint { margin: 0 0 10px; max-width: 75ch; }
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; margin-top: 14px;
  padding-bottom: 10px; border-bottom: 1px solid var(--grid); }
a { color: var(--accent); text-decoration: none; font-size: 14px; }
a:hover { text-decoration: underline; }
main { padding-bottom: 64px; }
.tiles { display: flex; flex-wrap: wrap; gap: 12px; margin-top: 20px; }
h3 + .tiles { margin-top: 0; }
.tile { flex: 1 1 130px; padding: 12px 16px; background: var(--card);
  border: 1px solid var(--grid); border-radius: 10px; }
.tile b { display: block; font-size: 22px; font-weight: 600;
  font-variant-numeric: tabular-nums; }
.tile span { color: var(--muted); font-size: 13px; }
.tile.bad b { color: var(--bad); }
.grid { display: grid; gap: 16px;
  grid-template-columns: repeat(auto-fill, minmax(min(440px, 100%), 1fr)); }
figure { margin: 0; padding: 14px 16px 10px; background: var(--card);
  border: 1px solid var(--grid); border-radius: 10px; }
figcaption { margin-bottom: 6px; font-weight: 600; font-size: 14px; }
.chart > svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--muted); font-size: 11.5px;
  font-variant-numeric: tabular-nums; }
svg text.name { font-size: 12px; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 16px; margin: 6px 0 0;
  padding: 0; list-style: none; font-size: 13px; color: var(--muted); }
.legend svg { width: 22px; height: 8px; margin-right: 6px; }
.legend li { overflow-wrap: anywhere; }
.picture img { display: block; max-width: 100%; height: auto; margin: 0 auto;
  border-radius: 4px; background: #fff; }
.wide { overflow-x: auto; border: 1px solid var(--grid);
  border-radius: 10px; background: var(--card); }
table { width: 100%; border-collapse: collapse; font-size: 13.5px; }
th, td { padding: 7px 14px; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--grid); }
tbody tr:last-child > * { border-bottom: 0; }
thead th { color: var(--muted); font-weight: 600; white-space: nowrap; }
tbody th { width: 210px; color: var(--muted); font-weight: 500; }
td { overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.results td { overflow-wrap: normal; }
.results td.protocol { min-width: 230px; overflow-wrap: anywhere; }
.results td:last-child { white-space: nowrap; }
details .wide { margin-top: 10px; }
td.ours { font-weight: 600; white-space: nowrap; }
td.published { color: var(--muted); font-style: italic; white-space: nowrap; }
tr.differs > * { background: var(--mark); }
.swatch { display: inline-block; width: 10px; height: 10px;
  margin-right: 7px; border-radius: 3px; }
.notes { margin: 16px 0 0; padding: 10px 16px 10px 34px; font-size: 14px;
  background: var(--mark); border-radius: 10px; }
details { margin-top: 12px; padding: 10px 16px; background: var(--card);
  border: 1px solid var(--grid); border-radius: 10px; }
summary { cursor: pointer; font-size: 14px; color: var(--accent); }
pre { margin: 10px 0 4px; overflow-x: auto; font-size: 12.5px;
  line-height: 1.45; }
"""
