import pytest
from mmengine.config import Config

from mmmoco.apis import load_config
from mmmoco.convert.config_text import read_config_text
from mmmoco.engine.results import config_hash


@pytest.mark.parametrize(
    'name', ['demo/mocov2_digits', 'mocov3_vit-s_32xb128_300e']
)
def test_equals_the_config_that_was_saved(name):
    cfg = load_config(name)
    read = read_config_text(cfg.pretty_text)
    assert config_hash(Config(read)) == config_hash(cfg)


@pytest.mark.parametrize(
    'text',
    [
        'a = __import__("os").system("true")',
        'import os',
        'a = dict(b=open("x"))',
        'a = [x for x in (1, 2)]',
        'a.b = 1',
        'a = {**{}}',
        'a = dict(**b)',
        'a = (',
        'a = {[]: 1}',
        'a = ' + '[' * 100_000,
        'a = ' + '-' * 200_000 + '1',
        'a = ' + '1+' * 20_000 + '1j',
        'a = ' + '[' * 190 + ']' * 190 + '.b',
        'a = "\\N{nothing}"',
    ],
)
def test_anything_but_plain_values_is_refused(text):
    with pytest.raises(ValueError, match='config text'):
        read_config_text(text)


def test_plain_values():
    text = "a = dict({'x-y': -1.5}, b=[1, (2, None)])\nc = True"
    assert read_config_text(text) == {
        'a': {'x-y': -1.5, 'b': [1, (2, None)]},
        'c': True,
    }
