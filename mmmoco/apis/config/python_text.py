"""Values and comments as the Python text of a config."""

import re
import textwrap
from collections.abc import Mapping
from keyword import iskeyword
from typing import Any

from yapf.yapflib.yapf_api import FormatCode

from mmmoco.private_names import templates_escaped

_STYLE = {
    'based_on_style': 'facebook',
    'column_limit': 79,
    'indent_closing_brackets': False,
}


class Code(str):
    """An expression, written as it is."""


def said(*reasons: str) -> str:
    """Return reasons as a comment, of which nothing becomes code."""
    text = '. '.join(r[0].upper() + r[1:] for r in reasons if r)
    words = ' '.join(text.split())
    signs = [c if c.isprintable() else ascii(c)[1:-1] for c in words]
    return textwrap.fill(
        # mmengine substitutes in comments, too, and that may end their line.
        re.sub(r'\{(?=\{)', '{ ', f'{"".join(signs)}.'),
        79,
        initial_indent='# ',
        subsequent_indent='# ',
        break_long_words=False,
        break_on_hyphens=False,
    )


def assigned(name: str, value: Any) -> str:
    """Return the line, or lines, that give a name its value."""
    text = f'{name} = {written(value)}'
    return str(FormatCode(text, style_config=_STYLE)[0]).rstrip()


def written(value: Any) -> str:
    """Return a value as Python; the key ``'**'`` unpacks what it has."""
    if isinstance(value, Code):
        return str(value)
    if isinstance(value, Mapping):
        pairs = {k: written(v) for k, v in value.items()}
        if all(_is_name(k) for k in value):
            # Nothing is assigned to what is unpacked.
            parts = [
                f'{k}={v}'.replace('**=', '**', 1) for k, v in pairs.items()
            ]
            return f'dict({", ".join(parts)})'
        return f'{{{", ".join(f"{k!r}: {v}" for k, v in pairs.items())}}}'
    if isinstance(value, list | tuple):
        inner = ', '.join(map(written, value))
        if isinstance(value, list):
            return f'[{inner}]'
        return f'({inner},)' if len(value) == 1 else f'({inner})'
    return templates_escaped(repr(value))


def _is_name(key: Any) -> bool:
    """Whether a key can stand in ``dict(…)``."""
    return key == '**' or (
        isinstance(key, str) and key.isidentifier() and not iskeyword(key)
    )
