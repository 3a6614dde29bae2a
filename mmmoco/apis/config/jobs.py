"""The configs that mmmoco brings, by name."""

from __future__ import annotations

from mmmoco.apis.lookup import list_configs


class Names(list[str]):
    """Names, written one a line."""

    def __str__(self) -> str:
        return '\n'.join(self)


def configs(pattern: str = '') -> Names:
    """Print the names of the configs that mmmoco brings.

    Args:
        pattern: Wildcards that the whole name must match ('*v3*'), or a
            regular expression that it must contain; default: all.

    Raises:
        ValueError: If no name matches, or the pattern is neither.

    Example:
        mmmoco configs '*v3*'
    """
    found = list_configs(pattern)
    if not found:
        raise ValueError(
            f'No config is called {pattern!r}; mmmoco configs names all.'
        )
    return Names(found)
