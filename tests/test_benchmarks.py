"""The benchmarks start: their options, and the step of every contender."""

import importlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mmengine.registry import DefaultScope

from mmmoco.apis import cli

FOLDER = Path(__file__).parents[1] / 'benchmarks'
NAMES = sorted(
    path.stem
    for path in FOLDER.glob('*.py')
    if 'cli.main(benchmark)' in path.read_text()
)

pytestmark = pytest.mark.slow


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module


def test_their_options_have_a_help(load):
    assert len(NAMES) >= 10
    for name in NAMES:
        parser = cli.parser_of(load(name).benchmark, f'{name}.py')
        assert parser.description
        assert all(action.help for action in parser._actions), name


@pytest.mark.parametrize(
    'name',
    [
        'ours',
        'ours_plain',
        'mmpretrain',
        'mmpretrain_same_settings',
        'official_transcription',
    ],
)
def test_every_contender_takes_steps(load, name):
    contenders = load('contenders')
    setting = contenders.MODELS_TO_TRAIN['look_up']
    setting = replace(setting, batch=4, keys=16)
    with DefaultScope.overwrite_default_scope('mmmoco'):
        contender = contenders.build(name, setting, keep_memory=False)
    views = torch.randn(2, 4, 3, setting.image, setting.image)
    first, second = (contender.step(*views) for _ in range(2))
    assert first > 0 and second > 0 and first != second
