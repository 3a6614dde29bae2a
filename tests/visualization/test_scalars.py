import math

import pytest

from mmmoco.json_lines import read_json_lines
from mmmoco.visualization.scalars import merge_scalars, read_scalars


def written(path, text):
    path.write_text(text)
    return path


def test_curves_by_name(tmp_path):
    path = written(
        tmp_path / 'scalars.json',
        '{"loss": 2.5, "lr": 1, "step": 10, "flag": true}\n'
        '\n{"knn/top1": 40.0, "step": 1}\n{"loss": NaN, "step": 20}\n',
    )
    series = read_scalars(path)
    assert set(series) == {'loss', 'lr', 'knn/top1'}
    assert series['loss'][0] == (10, 2.5) and series['lr'] == [(10, 1)]
    assert series['loss'][1][0] == 20 and math.isnan(series['loss'][1][1])


def test_a_line_cut_off_by_a_kill_does_not_count(tmp_path):
    path = written(tmp_path / 'x.json', '{"loss": 1, "step": 1}\n{"loss": 2')
    assert read_scalars(path) == {'loss': [(1, 1)]}


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('{"loss": 1}\n{"loss"\n{"loss": 1}\n', ['x.json', 'line 2']),
        ('[1, 2]\n', ['x.json', 'line 1', 'no JSON object']),
        ('{"loss": 1, "step": "two"}\n', ['x.json', "'two'"]),
    ],
)
def test_broken_files_are_named(tmp_path, text, words):
    with pytest.raises(ValueError) as error:
        read_scalars(written(tmp_path / 'x.json', text))
    assert all(word in str(error.value) for word in words)


def test_json_lines(tmp_path):
    path = written(tmp_path / 'results.jsonl', '{"a": 1}\n{"a": 2}\n')
    assert read_json_lines(path) == [{'a': 1}, {'a': 2}]


def test_a_resumed_run_replaces_what_it_does_again():
    first = {'loss': [(1, 9.0), (2, 8.0), (3, 7.0)], 'knn/top1': [(0, 1.0)]}
    second = {'loss': [(3, 6.0), (4, 5.0)]}
    assert merge_scalars([first, second]) == {
        'loss': [(1, 9.0), (2, 8.0), (3, 6.0), (4, 5.0)],
        'knn/top1': [(0, 1.0)],
    }


def test_a_new_run_in_the_same_folder_replaces_the_old_one():
    old = {'loss': [(1, 9.0), (2, 8.0)], 'knn/top1': [(5, 1.0)]}
    new = {'loss': [(1, 3.0)]}
    assert merge_scalars([old, new]) == new


def test_a_run_resumed_within_a_second_writes_on_in_the_same_file(tmp_path):
    path = written(
        tmp_path / 'x.json',
        '{"loss": 1, "lr": 1, "step": 1}\n{"loss": 2, "lr": 1, "step": 2}\n'
        '{"loss": 3, "lr": 1, "step": 3}\n{"time": 9, "step": 1}\n'
        '{"loss": 5, "lr": 2, "step": 2}\n{"loss": 6, "step": 3}\n',
    )
    assert read_scalars(path) == {
        'loss': [(1, 1), (2, 5), (3, 6)],
        'lr': [(1, 1), (2, 2)],
        'time': [(1, 9)],
    }
