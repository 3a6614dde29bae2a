"""tools/report.py on work dirs, and its page in a real browser."""

import json
import os

import numpy as np
import pytest
from matplotlib import image

from mmmoco.apis.report.health import judge, verdict
from mmmoco.apis.report.jobs import report
from mmmoco.apis.report.work_dir import (
    all_settings,
    amounts,
    read_settings,
    summarise,
)
from mmmoco.convert.config_text import read_config_text
from mmmoco.engine.collapse import CollapseWatch
from mmmoco.engine.environment import write_environment

from ..conftest import call

CONFIG = """
model = dict(
    backbone=dict(type='PlainConvNet'),
    dictionary=dict(size=1024, type='Queue'),
    loss=dict(temperature=0.1),
    m=0.99,
    type='MoCoV2')
optim_wrapper = dict(optimizer=dict(lr=0.03, type='SGD'))
train_cfg = dict(max_epochs=2, type='EpochBasedTrainLoop')
train_dataloader = dict(batch_size=128, dataset=dict(type='DigitScenes'))
"""
IMAGES = {'training images': 4311, 'processes': 2}


def work_dir(place, config=CONFIG, scale=1.0):
    """Write what a run leaves behind."""
    vis = place / '20260101_100000' / 'vis_data'
    vis.mkdir(parents=True)
    lines = [
        {
            'loss': scale * (6.0 - step / 50),
            'lr': 0.03,
            'm': 0.99,
            'pos_sim': step / 400,
            'neg_sim': 0.01,
            'top1': step / 300,
            'feature_std': 0.9,
            'feature_rank': 20.0 + step / 20,
            'old_key_sim': 0.98,
            'grad_norm': 10.0 ** (1 - step / 100),
            'images_per_s': 800.0,
            'data_wait': 0.05,
            'time': 0.5,
            'chance': 7.0,
            'alarms': 0,
            'epoch': step // 100,
            'step': step,
        }
        for step in range(10, 210, 10)
    ]
    lines += [
        {'knn/top1': 40.0 + 20 * epoch, 'step': epoch} for epoch in (0, 1, 2)
    ]
    (vis / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)))
    (vis / 'config.py').write_text(config)
    (vis.parent / 'environment.json').write_text(
        json.dumps({'git revision': 'abc123', 'torch': '2.12.1', **IMAGES})
    )
    (place / 'results.jsonl').write_text(
        json.dumps(
            {
                'task': 'knn',
                'protocol': {'k': 20},
                'checkpoint': 'epoch_2.pth',
                'epoch': 2,
                'metrics': {'top1': 80.0},
                'published': {'top1': 85.0, 'source': 'table 1'},
                'seed': 0,
                'time': '2026-01-01T10:00:00',
            }
        )
        + '\n'
    )
    draws = np.random.default_rng(0)
    image.imsave(place / 'views.png', draws.random((32, 64, 3)))
    labels = np.arange(60) % 3
    features = np.eye(8)[labels] + 0.1 * draws.normal(size=(60, 8))
    np.savez(place / 'features.npz', features=features, labels=labels)
    return place


def test_a_report_of_one_run(tmp_path, capsys):
    folder = work_dir(tmp_path / 'mine')
    assert call(report, folder) == 0
    path = folder / 'report.html'
    assert capsys.readouterr().out == f'{path}\n'
    html = path.read_text()
    for words in (
        'MoCoV2',
        '<td>1024</td>',
        'abc123',
        'table 1',
        'PCA of the features of 60 images',
        'Views of training images',
        'Whole config of mine',
        '<b>4,311</b><span>training images</span>',
        '<b>51,200</b><span>images seen</span>',  # 200 × 2 × 128
        '<b>100 s</b><span>of training, evaluations aside</span>',
        'Healthy: every monitor is where it should be.',
        '<b>This run:</b> From 5.70 to 2.10, below chance (7.00).',
    ):
        assert words in html, words


def test_runs_with_the_same_name_get_longer_ones(tmp_path):
    folders = [work_dir(tmp_path / a / 'run') for a in ('a', 'b')]
    out = tmp_path / 'both.html'
    assert call(report, *folders, '--out', out) == 0
    assert '<title>a/run · b/run</title>' in out.read_text()


def test_a_config_is_read_and_never_run(tmp_path):
    mark = tmp_path / 'ran'
    evil = f"x = __import__('pathlib').Path({str(mark)!r}).touch()\n"
    folder = work_dir(tmp_path / 'run', config=CONFIG + evil)
    assert call(report, folder) == 0
    assert not mark.exists()
    assert (
        'cannot be summed up: The config text holds more than plain values '
        'in line 11' in (folder / 'report.html').read_text()
    )


def test_a_dumped_config_is_understood(small_config):
    cfg = small_config()
    found = summarise(read_config_text(cfg.pretty_text), [])
    assert found['learning rate'] == '0.03' and found['epochs'] == '1'
    assert found['temperature'] == '0.1' and found['data set'] == 'DigitScenes'


@pytest.mark.parametrize(
    ('name', 'content', 'note'),
    [
        ('views.png', b'<script>', 'views.png is left out: it is no PNG'),
        ('features.npz', b'no zip', 'features.npz is left out'),
    ],
)
def test_what_cannot_be_shown_is_left_out_and_named(
    tmp_path, name, content, note
):
    folder = work_dir(tmp_path / 'run')
    (folder / name).write_bytes(content)
    assert call(report, folder) == 0
    assert note in (folder / 'report.html').read_text()


def test_features_with_pickles_are_not_opened(tmp_path):
    folder, mark = work_dir(tmp_path / 'run'), tmp_path / 'ran'

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(mark),)

    np.savez(
        folder / 'features.npz', features=np.array([Evil()], dtype=object)
    )
    assert call(report, folder) == 0
    assert not mark.exists()
    assert 'features.npz is left out' in (folder / 'report.html').read_text()


@pytest.mark.parametrize(
    ('spoil', 'words'),
    [
        (lambda d: d.rename(d.parent / 'gone'), ['does not exist']),
        (
            lambda d: [p.unlink() for p in d.rglob('*.json*')],
            ['neither', 'scalars.json', 'results.jsonl'],
        ),
        (
            lambda d: (d / 'results.jsonl').write_text('{\n{}\n'),
            ['results.jsonl', 'line 1'],
        ),
        (
            lambda d: next(d.rglob('scalars.json')).write_text('x\ny\n'),
            ['scalars.json', 'line 1'],
        ),
        (
            lambda d: next(d.rglob('environment.json')).write_text('x'),
            ['environment.json'],
        ),
    ],
    ids=['gone', 'empty', 'results', 'scalars', 'environment'],
)
def test_bad_input_gets_one_line(tmp_path, capsys, spoil, words):
    folder = work_dir(tmp_path / 'run')
    spoil(folder)
    assert call(report, folder) == 2
    errors = capsys.readouterr().err
    (line,) = [x for x in errors.splitlines() if 'error:' in x]
    assert all(word in line for word in words) and 'Traceback' not in errors
    assert not (folder / 'report.html').exists()


def test_the_same_folder_twice_and_a_bad_target(tmp_path, capsys):
    folder = work_dir(tmp_path / 'run')
    assert call(report, folder, folder) == 2
    assert 'twice' in capsys.readouterr().err
    assert call(report, folder, '--out', tmp_path / 'no' / 'x.html') == 2
    assert 'no' in capsys.readouterr().err


def test_the_number_of_images_is_left_for_the_report(tmp_path):
    write_environment(str(tmp_path), 12)
    found = json.loads((tmp_path / 'environment.json').read_text())
    assert found['training images'] == 12


HEALTHY = {
    'loss': 3.0,
    'chance': 7.0,
    'pos_sim': 0.7,
    'neg_sim': 0.0,
    'top1': 0.5,
    'feature_std': 0.95,
    'feature_rank': 30.0,
    'old_key_sim': 0.99,
    'grad_norm': 1.0,
    'images_per_s': 900.0,
    'data_wait': 0.01,
    'alarms': 0.0,
}


@pytest.mark.parametrize(
    ('name', 'value', 'words'),
    [
        ('loss', 6.95, 'no better than chance (7.00)'),
        (
            'loss',
            float('nan'),
            'is not finite at 2 of 2 lines of the log, first at iteration 10',
        ),
        (
            'grad_norm',
            float('inf'),
            'is not finite at 2 of 2 lines of the log, first at iteration 10',
        ),
        ('pos_sim', 0.05, 'hardly told apart'),
        ('neg_sim', 0.55, 'the negatives are not near 0'),
        ('feature_std', CollapseWatch.min_spread - 0.01, 'Collapsed: 0.14'),
        ('feature_rank', 1.2, 'Collapsed: 1.2'),
        ('old_key_sim', 0.3, 'the oldest keys are stale'),
        ('data_wait', 0.4, 'Waits for images 40% of the time'),
        ('alarms', 2.0, 'raised 2 alarm(s), the first by iteration 10;'),
    ],
)
def test_a_sick_run_reads_as_sick(name, value, words):
    def series(**changed):
        return {
            n: [(10.0, v), (20.0, v)] for n, v in (HEALTHY | changed).items()
        }

    assert not verdict(judge(series())).sick
    told = verdict(judge(series(**{name: value})))
    assert told.sick and told.text.startswith('Sick: ')
    assert words in told.text and '. ' not in told.text  # Nothing else.


def test_the_end_counts_not_the_beginning():
    early = {'feature_std': [(x, 0.05 if x < 5 else 0.9) for x in range(20)]}
    assert not verdict(judge(early)).sick
    late = {'feature_std': [(x, 0.9 if x < 17 else 0.01) for x in range(20)]}
    assert verdict(judge(late)).sick
    assert verdict({}).text == 'No monitor wrote anything.'
    told = verdict(judge({'loss': [(1.0, 2.0)]}))
    assert not told.sick and 'MonitorHook' in told.text


@pytest.mark.parametrize(
    ('seconds', 'text'),
    [(0.5, '100 s'), (3.0, '10 min'), (60.0, '3 h 20 min'), (1e308, None)],
)
def test_the_time_of_a_training(seconds, text):
    points = [(float(x), seconds) for x in range(10, 210, 10)]
    found = dict(amounts({'time': points}, {}, {'training images': 'x'}))
    assert found == ({'of training, evaluations aside': text} if text else {})


def test_every_setting_that_differs_is_shown(tmp_path):
    other = CONFIG.replace('lr=0.03', 'lr=0.06') + (
        "views = [dict(type='Crop', size=96), dict(type='Flip')]\n"
    )
    folders = [
        work_dir(tmp_path / 'a'),
        work_dir(tmp_path / 'b', config=other),
    ]
    html = report(list(map(str, folders))).read_text()
    rows = html[html.index('id="differing-settings"') :]
    rows = rows[: rows.index('</section>')]
    assert rows.count('<th scope="row">') == 4
    for words in (
        'optim_wrapper.optimizer.lr',
        '<td>0.06</td>',
        'views.0.size',
    ):
        assert words in rows, words
    assert 'model.m' not in rows
    for text in ('a = ' + '9' * 6000, 'f(1)'):
        assert read_settings(text, notes := []) == {} and len(notes) == 1
    assert all_settings(read_config_text('a = 0x' + 'f' * 6000)) == {}


@pytest.mark.browser
@pytest.mark.parametrize('scheme', ['light', 'dark'])
@pytest.mark.parametrize('count', [1, 2])
def test_a_browser_shows_the_plots_and_fetches_nothing(
    browser, tmp_path, scheme, count
):
    folders = [
        work_dir(tmp_path / f'run{i}', scale=1 + i) for i in range(count)
    ]
    target = report(list(map(str, folders)))
    page = browser.new_page(color_scheme=scheme)
    requests, complaints = [], []
    page.on('request', lambda request: requests.append(request.url))
    page.on('console', lambda message: complaints.append(message.text))
    page.on('pageerror', lambda error: complaints.append(str(error)))
    page.goto(target.as_uri())

    charts = page.locator('figure.chart > svg[role=img]')
    assert charts.count() == 12 + count  # A map of each run.
    for chart in charts.all():
        box = chart.bounding_box()
        assert box['width'] > 300 and box['height'] > 150
    lines = page.locator('figure', has_text='Training loss').locator(
        'polyline:not([stroke-dasharray])'
    )
    assert lines.count() == count
    # A line that goes down crosses the chart, in a colour of its own.
    box = lines.first.bounding_box()
    assert box['width'] > 250 and box['height'] > 50
    colours = {
        line.evaluate('e => getComputedStyle(e).stroke')
        for line in lines.all()
    }
    assert len(colours) == count and 'none' not in colours
    assert page.locator('circle').count() >= 60 * count

    images = page.locator('img')
    assert images.count() == count
    assert images.first.evaluate('e => e.naturalWidth') == 64
    background = page.evaluate(
        'getComputedStyle(document.body).backgroundColor'
    )
    light = int(background.removeprefix('rgb(').split(',')[0]) > 128
    assert light == (scheme == 'light')
    # Nothing sticks out to the right, on a small screen either,
    # nor must anything be scrolled within the page.
    page.set_viewport_size({'width': 390, 'height': 800})
    assert page.evaluate('document.documentElement.scrollWidth') <= 390
    for table in page.locator('.wide').all():
        assert table.evaluate('e => e.scrollWidth <= e.clientWidth')
    ticks = page.locator('figure.chart svg text').first
    assert ticks.bounding_box()['height'] > 9
    # On paper it is dark on white, whatever the screen likes.
    page.emulate_media(media='print')
    paper = 'getComputedStyle(document.body).backgroundColor'
    assert page.evaluate(paper) == 'rgb(255, 255, 255)'
    assert not page.locator('nav').is_visible()
    fetched = [url for url in requests if not url.startswith('data:')]
    assert fetched == [target.as_uri()]
    assert not complaints
    page.close()


@pytest.mark.browser
def test_hostile_names_do_nothing_in_a_browser(browser, tmp_path):
    evil = '"><img src=x onerror=document.title=1>'.replace('/', '')
    folder = work_dir(tmp_path / evil, config=f'load_from = {evil!r}')
    target = report(str(folder))
    page = browser.new_page()
    requests = []
    page.on('request', lambda request: requests.append(request.url))
    page.goto(target.as_uri())
    page.wait_for_timeout(200)
    assert page.title() == evil
    assert page.locator('h1').inner_text() == evil
    assert page.locator('img').count() == 1
    assert len([u for u in requests if not u.startswith('data:')]) == 1
    page.close()
