"""Which arguments a class or a function takes, and which was meant."""

import ast
import inspect
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import SequenceMatcher, get_close_matches
from functools import cache, partial
from typing import Any

from torch import nn

_NAMED = (
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.KEYWORD_ONLY,
)
#: Methods of a dict whose first argument is a key that is read.
_READING = ('get', 'pop', 'setdefault')


@dataclass(frozen=True)
class Arguments:
    """What can be given by name.

    Attributes:
        hints: Annotation by name; without one, the type of a default that
            is a number or a truth value, else None.
        complete: Whether there are no others. A ``**kwargs`` that goes
            anywhere but to the base class may take any.
    """

    hints: dict[str, Any]
    complete: bool


@cache
def arguments_of(kind: Any) -> Arguments:
    """Return what a class, function or partial function takes.

    Without ``**kwargs`` a class takes what its ``__init__`` names; with it
    also what the next class in its order of bases takes.
    """
    if isinstance(kind, partial):
        return _arguments_of_partial(kind)
    if not inspect.isclass(kind):
        hints, rest = _named(kind)
        return Arguments(hints, rest is None)
    found: dict[str, Any] = {}
    complete = True
    for base in kind.__mro__:
        init = vars(base).get('__init__')
        if init is None:
            continue
        if base in (object, nn.Module):
            return Arguments(found, complete)
        if not inspect.isfunction(init):
            return Arguments(found, False)
        init = inspect.unwrap(init)
        hints, rest = _named(init)
        hints = dict(list(hints.items())[1:])  # Without ``self``.
        found |= {k: v for k, v in hints.items() if k not in found}
        if rest is None:
            return Arguments(found, complete)
        kept = _kept(init, rest, base.__name__)
        if kept is None:
            complete = False
            continue
        found |= dict.fromkeys(kept - found.keys())
    return Arguments(found, False)


def _arguments_of_partial(kind: Any) -> Arguments:
    found = arguments_of(kind.func)
    inner = [value for value in kind.keywords.values() if callable(value)]
    # mmpretrain's wrapper of torchvision's transforms.
    if not found.complete and len(inner) == 1 and inspect.isclass(inner[0]):
        cls: Any = inner[0]
        return arguments_of(cls)
    hints = {k: v for k, v in found.hints.items() if k not in kind.keywords}
    return Arguments(hints, found.complete)


def _named(function: Any) -> tuple[dict[str, Any], str | None]:
    """Return names with their annotations, and that of the ``**kwargs``."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # Of C, without a signature.
        return {}, '?'
    hints = {p.name: _hint(p) for p in parameters if p.kind in _NAMED}
    rest = [p.name for p in parameters if p.kind is p.VAR_KEYWORD]
    return hints, rest[0] if rest else None


def _hint(parameter: inspect.Parameter) -> Any:
    if parameter.annotation is not parameter.empty:
        return parameter.annotation
    default = parameter.default
    return type(default) if isinstance(default, int | float) else None


def _kept(init: Any, name: str, owner: str) -> set[str] | None:
    """Return what an ``__init__`` itself reads of its ``**kwargs``.

    None if they go elsewhere than to the ``__init__`` of a base.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(init)))
    except (OSError, TypeError, SyntaxError):
        return None
    above = {
        child: node
        for node in ast.walk(tree)
        for child in ast.iter_child_nodes(node)
    }
    kept: set[str] = set()
    passed_on = False
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Name) and node.id == name):
            continue
        parent = above[node]
        call = above.get(parent)
        if isinstance(parent, ast.Assign) and node in parent.targets:
            continue
        if isinstance(parent, ast.Dict) and isinstance(call, ast.Assign):
            if ast.unparse(call.targets[0]) == name:
                continue  # kwargs = {**kwargs, …}
            return None
        constant: Any = None
        if isinstance(parent, ast.keyword) and isinstance(call, ast.Call):
            own = f'super({owner}, self).__init__'
            if ast.unparse(call.func) not in ('super().__init__', own):
                return None
            passed_on = True
            continue
        if isinstance(parent, ast.Attribute) and isinstance(call, ast.Call):
            if parent.attr not in _READING or not call.args:
                return None
            constant = call.args[0]
        elif isinstance(parent, ast.Subscript):
            constant = parent.slice
        elif isinstance(parent, ast.Compare):
            constant = parent.left
        if not isinstance(constant, ast.Constant):
            return None
        kept.add(str(constant.value))
    return kept if passed_on else None


def meant_by(name: str, known: Iterable[str]) -> list[str]:
    """Return the names that a misspelt one may stand for, at most three."""

    def unlike(other: str) -> tuple[float, str]:
        return -SequenceMatcher(None, name, other).ratio(), other

    known = sorted(known)
    near = [other for other in known if one_edit_apart(name, other)]
    if not near:
        plain = name.replace('_', '').lower()
        near = [o for o in known if o.replace('_', '').lower() == plain]
    near.sort(key=unlike)
    return near[:3] or get_close_matches(name, known, n=1, cutoff=0.7)


def one_edit_apart(one: str, other: str) -> bool:
    """Whether a letter was left out, added, changed, or two were swapped."""
    if one == other or abs(len(one) - len(other)) > 1:
        return False
    short, long = sorted((one, other), key=len)
    start = 0
    while start < len(short) and short[start] == long[start]:
        start += 1
    if len(short) < len(long):
        return short[start:] == long[start + 1 :]
    if short[start + 1 :] == long[start + 1 :]:
        return True
    swapped = short[start : start + 2] == long[start : start + 2][::-1]
    return swapped and short[start + 2 :] == long[start + 2 :]
