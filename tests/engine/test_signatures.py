"""What can be given to a class, and which name was meant."""

import pytest
from torch import nn

from mmmoco.engine.signatures import (
    arguments_of,
    meant_by,
    one_edit_apart,
)


class Base(nn.Module):
    def __init__(self, width, depth=2):
        super().__init__()


class Passes(Base):
    def __init__(self, extra, **kwargs):
        kwargs = {'depth': 3, **kwargs}
        super().__init__(**kwargs)


class Reads(Base):
    def __init__(self, **kwargs):
        self.own = kwargs.pop('own', None)
        if 'other' in kwargs:
            self.other = kwargs['other']
        super().__init__(**kwargs)


class Keeps(Base):
    def __init__(self, width, **kwargs):
        self.kwargs = kwargs
        super().__init__(width)


class Skips(Passes):
    def __init__(self, **kwargs):
        super(Passes, self).__init__(**kwargs)


class Swallows(Base):
    def __init__(self, width, **_):
        super().__init__(width)


class Bare(nn.Module):
    pass


def function(a, *, b=1.0):
    pass


@pytest.mark.parametrize(
    ('kind', 'names', 'complete'),
    [
        (Base, 'width depth', True),
        (Passes, 'extra width depth', True),
        (Reads, 'own other width depth', True),
        (Keeps, 'width depth', False),
        (Skips, 'extra width depth', False),
        (Swallows, 'width depth', False),
        (Bare, '', True),
        (function, 'a b', True),
        (dict, '', False),
    ],
)
def test_arguments(kind, names, complete):
    found = arguments_of(kind)
    assert set(found.hints) == set(names.split())
    assert found.complete == complete


def test_a_number_tells_its_kind():
    assert arguments_of(Base).hints == {'width': None, 'depth': int}


@pytest.mark.parametrize(
    ('one', 'other', 'apart'),
    [
        ('size', 'sizes', True),
        ('size', 'szie', True),
        ('size', 'site', True),
        ('size', 'size', False),
        ('size', 'seiz', False),
        ('size', 'sizing', False),
        ('m', 'k', True),
        ('', 'k', True),
    ],
)
def test_one_edit(one, other, apart):
    assert one_edit_apart(one, other) is apart
    assert one_edit_apart(other, one) is apart


@pytest.mark.parametrize(
    ('name', 'meant'),
    [
        ('dpth', ['depth']),
        ('DataRoot', ['data_root']),
        ('view_', ['view_1', 'view_2']),
        ('num_channels', ['in_channels']),
        ('zebra', []),
    ],
)
def test_what_is_meant(name, meant):
    known = ('depth', 'data_root', 'view_1', 'view_2', 'in_channels')
    assert meant_by(name, known) == meant
