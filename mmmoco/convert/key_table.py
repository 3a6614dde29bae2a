import re
from collections.abc import Iterable
from functools import cached_property
from typing import NamedTuple

#: A placeholder of a template: ``{i}`` a number, ``{name}`` anything.
_PLACEHOLDER = re.compile(r'\{(\w+)\}')
_NUMBERS = 'ijs'


class KeyTable:
    """Names of two layouts, side by side.

    A row is a pair of templates with the same placeholders, for example
    ``('blocks.{i}.norm1.{p}', 'layers.{i}.ln1.{p}')``. One-letter names of
    ``i j s`` stand for numbers, others for the rest of a name. The first row
    that fits decides.

    Args:
        rows: Pairs of (their name, our name).
    """

    def __init__(self, *rows: tuple[str, str]) -> None:
        self.rows = rows

    def __add__(self, other: 'KeyTable') -> 'KeyTable':
        return KeyTable(*self.rows, *other.rows)

    @cached_property
    def _to_ours(self) -> list[tuple[re.Pattern[str], str]]:
        return [(_pattern(theirs), ours) for theirs, ours in self.rows]

    @cached_property
    def _to_theirs(self) -> list[tuple[re.Pattern[str], str]]:
        return [(_pattern(ours), theirs) for theirs, ours in self.rows]

    def to_ours(self, name: str) -> str | None:
        """Translate one of their names; None if no row fits."""
        return _translate(self._to_ours, name)

    def to_theirs(self, name: str) -> str | None:
        """Translate one of our names; None if no row fits."""
        return _translate(self._to_theirs, name)


class Part(NamedTuple):
    """A module of a foreign checkpoint and its place in ours.

    Attributes:
        theirs: Prefix there, with its dot; empty for the top.
        ours: Prefix here.
        table: Names below the two prefixes.
        via: To the names of the table, where theirs are others.
    """

    theirs: str
    ours: str
    table: KeyTable
    via: KeyTable | None = None

    def to_ours(self, name: str) -> str | None:
        """Translate the name of a tensor; None if it is not of this part."""
        if not name.startswith(self.theirs):
            return None
        rest: str | None = name[len(self.theirs) :]
        for table in filter(None, (self.via, self.table)):
            rest = rest and table.to_ours(rest)
        return rest and self.ours + rest


def twins(
    query: str, key: str, module: str, table: KeyTable
) -> tuple[Part, Part]:
    """Place a module of the query encoder, and that of the key encoder.

    Args:
        query: Prefix of the one there, with its dot.
        key: Prefix of the other.
        module: ``'backbone'`` or ``'neck'``.
        table: Names below the prefixes.
    """
    return (
        Part(query, f'{module}.', table),
        Part(key, f'key_encoder.{module}.', table),
    )


def unchanged(*names: str) -> KeyTable:
    """Return the table of names that are the same in both layouts."""
    return KeyTable(*((name, name) for name in names))


def substitutions(rows: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return pattern and replacement, as for ``re.sub``, of each row.

    Args:
        rows: Pairs of (name before, name after).
    """
    return [
        (_pattern(before).pattern, _PLACEHOLDER.sub(r'\\g<\1>', after))
        for before, after in rows
    ]


#: Every name stays as it is.
SAME = unchanged('{p}')


def _pattern(template: str) -> re.Pattern[str]:
    text = ''
    # Odd pieces are the names of placeholders, even ones plain text.
    for position, piece in enumerate(_PLACEHOLDER.split(template)):
        if position % 2 == 0:
            text += re.escape(piece)
        else:
            rest = r'\d+' if piece in _NUMBERS else '.+'
            text += f'(?P<{piece}>{rest})'
    return re.compile(text)


def _translate(
    rows: list[tuple[re.Pattern[str], str]], name: str
) -> str | None:
    for pattern, template in rows:
        match = pattern.fullmatch(name)
        if match:
            return template.format(**match.groupdict())
    return None
