"""The page as text; tests/apis opens it in a browser."""

from html.parser import HTMLParser

import numpy as np
import pytest

from mmmoco.visualization.report import (
    FeatureMap,
    Finding,
    Picture,
    RunRecord,
    render_report,
)

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>'


class Page(HTMLParser):
    """Tags, attributes and visible text of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)

    def names(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def text(self):
        return ' '.join(self.words)


def result(**kwargs):
    return {
        'task': 'knn',
        'protocol': {'k': 20, 'temperature': 0.07},
        'checkpoint': None,
        'epoch': 1,
        'metrics': {'top1': 61.25},
        'published': None,
        'seed': 0,
        'time': '2026-01-01T10:00:00',
        **kwargs,
    }


def run(name='run', **kwargs):
    scalars = {
        'loss': [(10, 5.0), (20, 4.0)],
        'epoch': [(10, 1.0), (20, 2.0)],
        'knn/top1': [(1, 50.0), (2, 61.2)],
        'pos_sim': [(10, 0.5), (20, 0.75)],
        'neg_sim': [(10, 0.1), (20, 0.0)],
    }
    return RunRecord(name=name, **{'scalars': scalars, **kwargs})


def test_every_text_is_escaped():
    """No text of a run can become a tag of the page."""
    record = RunRecord(
        name=EVIL,
        scalars={'loss': [(1, 2.0)]},
        results=[
            result(
                task=EVIL,
                protocol={EVIL: EVIL},
                checkpoint=f'/a/{EVIL}',
                metrics={EVIL: EVIL, 'top1': 1.0},
                published={EVIL: EVIL, 'source': EVIL},
                seed=EVIL,
                time=EVIL,
                epoch=EVIL,
            )
        ],
        summary={EVIL: EVIL},
        settings={EVIL: EVIL},
        amounts={EVIL: EVIL},
        verdict=Finding(EVIL, True),
        findings={'loss': Finding(EVIL, True)},
        config=f'name = "{EVIL}" </pre>',
        environment={EVIL: EVIL},
        pictures=[Picture(EVIL, b'png')],
        feature_map=FeatureMap(EVIL, np.eye(3)[:, :2], [EVIL, 'b', 'c']),
        notes=[EVIL],
    )
    for runs in ([record], [record, run(EVIL + '2', settings={'x': EVIL})]):
        page = Page(render_report(runs, made=EVIL))
        assert not page.names('script')
        assert {a['src'][:15] for a in page.names('img')} == {
            'data:image/png;'
        }
        assert not any(
            name.startswith('on') for _, attrs in page.tags for name in attrs
        )
        assert page.text.count('alert(1)') > 10


def test_nothing_is_fetched_and_no_script_may_run():
    html = render_report([run(pictures=[Picture('p', b'png')])])
    page = Page(html)
    (policy,) = [m['content'] for m in page.names('meta') if 'http-equiv' in m]
    assert "default-src 'none'" in policy and 'script' not in policy
    assert not page.names('link') and not page.names('script')
    assert all(a['href'].startswith('#') for a in page.names('a'))
    assert 'http' not in html.replace('http-equiv', '') and 'url(' not in html


def test_ours_and_published_are_told_apart():
    published = {'top1': 67.5, 'source': 'MoCo v2, table 1'}
    html = render_report(
        [run(results=[result(published=published, checkpoint='/x/e.pth')])]
    )
    assert 'class="ours" data-name="ours (%)">top1 61.25</td>' in html
    assert 'data-name="published (%)">top1 67.50</td>' in html
    assert '>MoCo v2, table 1</td>' in html and '>e.pth (' in html
    none = render_report([run(results=[result()])])
    assert 'data-name="published (%)">–</td>' in none


def test_what_makes_a_figure_doubtful_stands_beside_it():
    remarks = {'eyes': ['std: 1 in a, 2 in b'], 'queries_in_bank': 7}
    html = render_report([run(results=[result(remarks=remarks)])])
    assert 'BUT std: 1 in a, 2 in b; BUT 7 queries stand in the bank' in html
    sound = {'eyes': [], 'classes': 'Labels are compared by name: 3 classes'}
    for remarks in (sound, None, {}):
        html = render_report([run(results=[result(remarks=remarks)])])
        assert 'BUT' not in html


def test_of_repeated_evaluations_the_last_stands_out():
    results = [result(epoch=n, metrics={'top1': 50.0 + n}) for n in (1, 2, 3)]
    results.append(result(checkpoint='a.pth'))
    html = render_report([run(results=results)])
    shown, hidden = html.split('2 earlier evaluations')
    assert 'top1 53.00' in shown and 'a.pth' in shown
    assert 'top1 51.00' not in shown and 'top1 51.00' in hidden


def test_runs_side_by_side():
    html = render_report(
        [
            run('first', summary={'m': '0.99', 'lr': '0.03'}),
            run('second', summary={'m': '0.9', 'lr': '0.03'}),
        ]
    )
    page = Page(html)
    assert [a.get('class') for a in page.names('tr')].count('differs') == 1
    labels = [a['aria-label'] for a in page.names('svg') if 'role' in a]
    loss = next(x for x in labels if x.startswith('Training loss'))
    assert 'first: loss: from 5 to 4; second: loss: from 5 to 4' in loss


def test_m_is_drawn_as_what_is_left_to_1():
    m = {'m': [(10, 0.99), (20, 0.999), (30, 1.0)]}
    page = Page(render_report([run(scalars=m)]))
    (label,) = [a['aria-label'] for a in page.names('svg') if 'role' in a]
    assert 'from 0.01 to 0.001' in label


def test_one_line_of_chance_for_runs_that_share_it():
    def labels(*chances):
        runs = [
            run(str(i), scalars={'loss': [(1, 2.0)], 'chance': [(1, chance)]})
            for i, chance in enumerate(chances)
        ]
        page = Page(render_report(runs))
        return next(a['aria-label'] for a in page.names('svg') if 'role' in a)

    assert labels(7.0, 7.0, 7.0).count('chance') == 1
    assert labels(7.0, 6.0, 7.0).count('chance') == 2


def test_epochs_and_iterations_do_not_share_an_axis():
    counted = {'knn/top1': [(100, 50.0)], 'loss': [(100, 2.0)]}
    html = render_report([run('a'), run('b', scalars=counted)])
    labels = [a['aria-label'] for a in Page(html).names('svg') if 'role' in a]
    knn = [x for x in labels if x.startswith('k-NN')]
    assert len(knn) == 2 and 'a: top-1' in knn[0] and 'b: top-1' in knn[1]


@pytest.mark.parametrize('alarms', [0.0, 3.0])
def test_alarms_are_shown(alarms):
    html = render_report([run(scalars={'alarms': [(50, alarms)]})])
    assert ('class="tile bad"' in html) == bool(alarms)


def test_what_is_missing_leaves_no_empty_section():
    page = Page(render_report([RunRecord('x', results=[result()])]))
    assert [a['id'] for a in page.names('section')] == ['evaluations']
