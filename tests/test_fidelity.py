"""The table of the numerical parity, and the page that holds it."""

import importlib.util
import math
from pathlib import Path

import pytest

from .comparison import Comparison, check

ROOT = Path(__file__).parents[1]


@pytest.fixture
def fidelity():
    path = ROOT / 'benchmarks' / 'fidelity.py'
    spec = importlib.util.spec_from_file_location('fidelity', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_bound_that_is_exceeded_is_marked_and_ends_with_an_error(
    fidelity, monkeypatch, capsys
):
    good = Comparison('a', 'b', 0.0, 0.0, 'pixels', '3 values')
    bad = Comparison('c', 'd', math.nan, 1.0)

    def broken():
        yield good
        raise AssertionError('left the path\nsecond line')

    found = {'one': lambda: iter([good, bad]), 'two': broken}
    monkeypatch.setattr(fidelity, 'SECTIONS', {'S': ['one', 'two']})
    monkeypatch.setattr(fidelity, 'comparisons', lambda m: found[m]())
    with pytest.raises(SystemExit) as stop:
        fidelity.benchmark()
    assert stop.value.code == 1
    said = capsys.readouterr().out
    assert '| a | b | 0 | 0 | pixels | 3 values |' in said
    assert '| c | d | nan **exceeded** | 1 |  |  |' in said
    assert '| two | | **failed**: left the path |' in said
    assert 'Exceeded: c, two' in said
    with pytest.raises(AssertionError, match="what='c'"):
        check([good, bad])


def test_the_page_is_written_and_keeps_its_text(
    fidelity, monkeypatch, tmp_path
):
    page = tmp_path / 'page.md'
    page.write_text(f'Before\n{fidelity.BEGIN}\nold\n{fidelity.END}\nAfter\n')
    monkeypatch.setattr(fidelity, 'PAGE', page)
    fidelity.write_page(['new', '', 'rows'])
    text = page.read_text()
    assert text.startswith('Before\n') and text.endswith('\nAfter\n')
    assert 'new\n\nrows' in text and 'old' not in text
    page.write_text('nothing')
    with pytest.raises(ValueError, match='page.md needs'):
        fidelity.write_page(['new'])


def test_the_page_keeps_its_bounds_and_names_every_section(fidelity):
    text = fidelity.PAGE.read_text(encoding='utf-8')
    for section in fidelity.SECTIONS:
        assert f'### {section}' in text
    table = [
        line.split('|')[1:-1] for line in text.splitlines() if '|' in line
    ]
    rows = [row for row in table if row[2].strip()[0].isdigit()]
    assert len(rows) > 60
    for _, _, difference, bound, *_ in rows:
        assert float(difference) <= float(bound)
    assert 'exceeded' not in text.split(fidelity.BEGIN)[1]
    assert 'failed' not in text.split(fidelity.BEGIN)[1]
