from collections.abc import Mapping
from copy import deepcopy
from typing import Any


class Fields:
    """The fields of a foreign config, each taken once.

    What nobody has taken in the end is reported by :meth:`rest`, so that no
    field is dropped in silence.

    Args:
        config: Nested dictionaries and lists of plain values.

    Attributes:
        tree: What is left of it.
        notes: What was assumed, for the user to read.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.tree: dict[str, Any] = deepcopy(dict(config))
        self.notes: list[str] = []

    def take(self, path: str, default: Any = None) -> Any:
        """Return and remove the value at a dotted path.

        Args:
            path: For example ``'model.backbone.depth'``.
            default: Returned if there is no such field.
        """
        *parents, last = path.split('.')
        node = self.peek('.'.join(parents)) if parents else self.tree
        return node.pop(last, default) if isinstance(node, dict) else default

    def take_all(self, *names: str, below: str = '') -> dict[str, Any]:
        """Return and remove the fields of these names that are there.

        Args:
            names: Of the fields.
            below: Dotted path of what they are fields of.
        """
        paths = {name: f'{below}.{name}' if below else name for name in names}
        found = {name: self.take(path) for name, path in paths.items()}
        return {name: v for name, v in found.items() if v is not None}

    def take_if(self, path: str, *expected: Any) -> None:
        """Remove a field whose value means what is done here anyway."""
        if self.peek(path, _Absent) in expected:
            self.take(path)

    def peek(self, path: str, default: Any = None) -> Any:
        """Return the value at a dotted path, without taking it."""
        node: Any = self.tree
        for name in path.split('.'):
            if not isinstance(node, dict) or name not in node:
                return default
            node = node[name]
        return node

    def rest(self) -> dict[str, Any]:
        """Return what was not taken, by dotted path."""
        found: dict[str, Any] = {}
        _leaves(self.tree, '', found)
        return found


class _Absent:
    """Equal to no value of a config."""


def _leaves(node: Any, path: str, found: dict[str, Any]) -> None:
    if isinstance(node, dict):  # an empty one: all of its fields were taken
        for name, value in node.items():
            _leaves(value, f'{path}.{name}' if path else str(name), found)
    elif isinstance(node, list) and any(isinstance(x, dict) for x in node):
        for index, value in enumerate(node):
            _leaves(value, f'{path}[{index}]', found)
    else:
        found[path] = node
