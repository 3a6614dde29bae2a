"""Values and comments as the Python text of a config."""

import textwrap
from collections.abc import Mapping
from keyword import iskeyword
from typing import Any

_WIDTH = 79


class Code(str):
    """An expression, written as it is."""


def said(*reasons: str) -> str:
    """Return reasons as a comment."""
    text = '. '.join(r[0].upper() + r[1:] for r in reasons if r)
    lines = textwrap.wrap(
        f'{text}.', _WIDTH - 2, break_long_words=False, break_on_hyphens=False
    )
    return '\n'.join(f'# {line}' for line in lines)


def assigned(name: str, value: Any) -> str:
    """Return the line, or lines, that give a name its value."""
    return f'{name} = {written(value, 0, len(name) + 3)}'


def written(value: Any, indent: int = 0, before: int = 0) -> str:
    """Return a value as Python, broken where a line would be too long."""
    line = _in_a_line(value)
    if indent + before + len(line) < _WIDTH or isinstance(value, Code):
        return line
    pad = ' ' * (indent + 4)
    end = ' ' * indent
    if isinstance(value, Mapping):
        inner = ''.join(
            f'{pad}{k}{written(v, indent + 4, len(k) + 1)},\n'
            for k, v in zip(_keys(value), value.values(), strict=True)
        )
        return _dict(value, f'\n{inner}{end}')
    if isinstance(value, list | tuple):
        if all(isinstance(x, int | float) for x in value):
            text = ', '.join(map(repr, value))
            inner = textwrap.fill(
                text, _WIDTH, initial_indent=pad, subsequent_indent=pad
            )
            return f'[\n{inner},\n{end}]'
        inner = ''.join(f'{pad}{written(v, indent + 4, 1)},\n' for v in value)
        return f'[\n{inner}{end}]'
    return line


def _in_a_line(value: Any) -> str:
    if isinstance(value, Code):
        return str(value)
    if isinstance(value, Mapping):
        pairs = zip(_keys(value), value.values(), strict=True)
        return _dict(value, ', '.join(f'{k}{_in_a_line(v)}' for k, v in pairs))
    if isinstance(value, tuple) and len(value) == 1:
        return f'({_in_a_line(value[0])},)'
    if isinstance(value, list | tuple):
        inner = ', '.join(map(_in_a_line, value))
        return f'[{inner}]' if isinstance(value, list) else f'({inner})'
    return repr(value)


def _plain(value: Mapping[Any, Any]) -> bool:
    """Whether all keys can stand in ``dict(…)``."""
    return all(
        isinstance(k, str) and k.isidentifier() and not iskeyword(k)
        for k in value
    )


def _keys(value: Mapping[Any, Any]) -> list[str]:
    if _plain(value):
        return [f'{k}=' for k in value]
    return [f'{k!r}: ' for k in value]


def _dict(value: Mapping[Any, Any], inner: str) -> str:
    return f'dict({inner})' if _plain(value) else f'{{{inner}}}'
