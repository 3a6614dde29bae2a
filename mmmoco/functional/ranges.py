"""Checks of the ranges that operations draw from."""

import math

Range = tuple[float, float]


def check_within(most: float = 1.0, **values: float) -> None:
    """Refuse numbers outside of [0, most].

    Args:
        most: The largest number that is allowed.
        **values: The numbers by name.

    Raises:
        ValueError: Naming the one that is outside.
    """
    for name, value in values.items():
        if not 0.0 <= value <= most:
            raise ValueError(f'{name}={value} must lie within [0, {most:g}].')


def check_range(
    name: str, bounds: Range, most: float = math.inf, positive: bool = False
) -> None:
    """Refuse bounds that are not ordered within [0, most].

    Args:
        name: What they are called.
        bounds: Low and high.
        most: The highest that is allowed.
        positive: Refuse 0 too.

    Raises:
        ValueError: If they are not.
    """
    low, high = bounds
    if not 0.0 <= low <= high <= most or (positive and low == 0.0):
        raise ValueError(
            f'{name}={tuple(bounds)} must be low to high, within '
            f'{"(" if positive else "["}0, {most:g}].'
        )


def check_size(name: str, size: object) -> tuple[int, int]:
    """Return height and width of a crop.

    Args:
        name: Of what is cut, for the message.
        size: Side of a square, or height and width.

    Raises:
        ValueError: If it is neither.
    """
    sides = size if isinstance(size, list | tuple) else (size, size)
    if len(sides) != 2 or not all(type(x) is int and x > 0 for x in sides):
        raise ValueError(
            f'{name}(size={size!r}): give the side of a square, or (height, '
            'width), in whole pixels from 1.'
        )
    return sides[0], sides[1]
