"""A report on a foreign work dir ends well or in one line, whatever is in it.

Pure functions are called many times; what they may raise is what the tool
turns into one line.
"""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmmoco.apis.report.health import _JUDGES, judge, verdict
from mmmoco.apis.report.work_dir import (
    _map_features,
    _read_environment,
    all_settings,
    amounts,
    read_settings,
    summarise,
)
from mmmoco.json_lines import read_json_lines
from mmmoco.visualization.scalars import read_scalars

repeatable = settings(
    max_examples=150,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)

CONFIG = """model = dict(
    type='MoCoV2',
    backbone=dict(type='ResNet', depth=50),
    m=0.999)
optim_wrapper = {'optimizer': {'lr': 0.03}}
train_cfg = dict(max_epochs=200)
betas = [(0.9, -0.95), None, True, 1e-3]
"""
LINE = '{"loss": 6.5, "step": 3, "name": "a"}\n'
DEEP = [
    *('[' * 100_000, '-' * 200_000 + '1', 'not ' * 80_000 + '1', '(' * 500),
    *('[' * 190 + ']' * 190, '1+' * 20_000 + '1j', '9' * 6000, '{[]: 1}'),
    *('{**x}', '"\\N{nothing}"', '\0', 'dict(' * 150 + ')' * 150, 'x.y(1)'),
    *('__import__("os").system("true")', 'f"{1}"', 'lambda: 1', '1j' * 99),
    *('{"a": ' * 100_000 + '1' + '}' * 100_000, '1e999', 'NaN', '\ud800'),
]


def spoilt(text):
    """A text with a part cut out, doubled, or replaced by something odd."""
    places = st.integers(0, len(text))
    return st.builds(
        lambda a, b, new: text[: min(a, b)] + new + text[max(a, b) :],
        places,
        places,
        st.one_of(
            st.sampled_from(DEEP),
            st.text(max_size=4),
            st.sampled_from(['=', '(', ')', ',', '\n', ':', '}', '"', ' ']),
        ),
    )


@repeatable
@given(text=st.one_of(spoilt(CONFIG), st.sampled_from(DEEP)))
def test_any_config_is_summed_up_or_named(text):
    notes = []
    cfg = read_settings(text, notes)
    summary = summarise(cfg, notes)
    assert all(isinstance(value, str) for value in summary.values())
    assert len(notes) <= 1 and (not notes or not summary)
    every = all_settings(cfg)
    assert all(isinstance(value, str) for value in every.values())


def test_a_whole_config_is_summed_up_without_a_note():
    notes = []
    cfg = read_settings(CONFIG, notes)
    assert summarise(cfg, notes)['m'] == '0.999' and not notes
    for deep in DEEP[:4]:
        read_settings(f'a = {deep}', notes)
    assert len(notes) == 4 and all('cannot be summed up' in n for n in notes)


@repeatable
@given(text=st.one_of(spoilt(LINE), st.sampled_from(DEEP)))
def test_any_line_of_results_is_read_or_named(text, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / 'line.jsonl'
    path.write_text(f'{LINE}{text}\n', 'utf-8', errors='replace')
    for read in (read_json_lines, read_scalars):
        try:
            read(path)
        except ValueError as error:
            assert 'line' in str(error) or 'step' in str(error)


@repeatable
@given(
    scalars=st.dictionaries(
        st.sampled_from([*_JUDGES, 'chance', 'neg_sim', 'time', 'knn/top1']),
        st.lists(st.tuples(st.floats(0, 1e9), st.floats()), max_size=30),
    ),
    batch=st.text(max_size=4),
    count=st.one_of(st.none(), st.floats(), st.integers()),
)
def test_any_scalars_are_put_into_words(scalars, batch, count):
    found = judge(scalars)
    assert verdict(found).sick == any(f.sick for f in found.values())
    environment = {'training images': count, 'processes': count}
    told = dict(amounts(scalars, {'batch per GPU': batch}, environment))
    assert all(isinstance(text, str) for text in told.values())


@pytest.mark.parametrize('deep', DEEP[:2] + [DEEP[17]])
def test_a_deep_environment_is_named(tmp_path, deep):
    (tmp_path / 'x').mkdir()
    (tmp_path / 'x' / 'environment.json').write_text(deep)
    with pytest.raises(ValueError, match=r'environment\.json'):
        _read_environment(tmp_path)


def stored(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


FEATURES = stored(
    features=np.random.default_rng(0).normal(size=(6, 3)), labels=np.arange(6)
)


@repeatable
@given(
    place=st.integers(0, len(FEATURES) - 1),
    length=st.integers(0, 9),
    new=st.binary(max_size=9),
)
def test_any_features_are_drawn_or_left_out(
    place, length, new, tmp_path_factory
):
    path = tmp_path_factory.getbasetemp() / 'features.npz'
    path.write_bytes(FEATURES[:place] + new + FEATURES[place + length :])
    notes = []
    found = _map_features(path, 'pca', notes)
    assert (found is None) == bool(notes)


def test_features_that_would_unfold_are_left_out(tmp_path):
    path = Path(tmp_path, 'features.npz')
    with (
        zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive,
        archive.open('features.npy', 'w') as entry,
    ):
        np.lib.format.write_array_header_1_0(
            entry,
            {'descr': '<f4', 'fortran_order': False, 'shape': (9, 2**22)},
        )
        for _ in range(36):
            entry.write(bytes(2**22))
    assert os.path.getsize(path) < 200_000
    for content in (
        None,
        stored(features=np.zeros(())),
        stored(features=np.array(['a'] * 9)),
        stored(features=np.ones((4, 3)), labels=np.array(1)),
        b'PK',
        b'',
    ):
        if content is not None:
            path.write_bytes(content)
        notes = []
        assert _map_features(path, 'pca', notes) is None
        assert 'left out' in notes[0]
