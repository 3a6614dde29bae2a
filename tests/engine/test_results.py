"""``results.jsonl``, as a run that may be killed leaves it."""

import json

import pytest
from mmengine.config import Config

from mmmoco.engine.results import (
    append_result,
    figures_text,
    read_results,
)

LINE = json.dumps(
    {'task': 'knn', 'protocol': {}, 'metrics': {}, 'config_hash': 'a'}
)


def test_a_last_line_that_was_cut_off_does_not_count(tmp_path):
    assert read_results(str(tmp_path)) == []
    path = tmp_path / 'results.jsonl'
    path.write_text(f'{LINE}\n{LINE[:30]}')
    assert read_results(str(tmp_path)) == [json.loads(LINE)]


@pytest.mark.parametrize(
    ('line', 'word'),
    [
        (LINE[:30], 'line 2'),
        ('{"task": "knn"}', 'protocol'),
        ('[]', 'no JSON'),
    ],
)
def test_any_other_line_that_is_no_result_is_named(tmp_path, line, word):
    (tmp_path / 'results.jsonl').write_text(f'{LINE}\n{line}\n{LINE}\n')
    with pytest.raises(ValueError, match=f'line 2.*{word}|{word}.*Remove'):
        read_results(str(tmp_path))


def test_figures_in_words():
    assert (
        figures_text({'top1': 12.345, 'mAP': 3}) == 'top-1 12.35 %, mAP 3.00 %'
    )


@pytest.mark.parametrize(
    ('last', 'kept'),
    [(LINE[:30], 1), (LINE, 2), (f'{LINE}\n', 2)],
    ids=['cut', 'no end', 'whole'],
)
def test_what_follows_a_last_line_that_was_cut_off_is_read(
    tmp_path, last, kept
):
    path = tmp_path / 'results.jsonl'
    path.write_text(f'{LINE}\n{last}')
    facts = dict(protocol={}, metrics={'top1': 1.0}, cfg=Config())
    append_result(str(tmp_path), task='svm', **facts)
    found = read_results(str(tmp_path))
    assert [x['task'] for x in found] == ['knn'] * kept + ['svm']
