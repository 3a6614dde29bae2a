"""Messages: into the log, and what they hold of what others chose."""

import logging
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from mmengine.logging import print_log


def log_info(text: str) -> None:
    """Write a line to the log of what runs."""
    print_log(text, 'current')


def log_warning(text: str) -> None:
    """Write a warning to the log of what runs."""
    print_log(text, 'current', logging.WARNING)


def printable(text: str) -> str:
    """Return text that every file and screen takes: names may be any bytes."""
    return text.encode('utf-8', 'backslashreplace').decode('utf-8')


def clipped(text: str, most: int) -> str:
    """Return text, cut to a number of characters."""
    return text if len(text) <= most else f'{text[:most]}…'


def shortened(value: object, most: int = 200) -> str:
    """Return how Python writes a value, cut to what a message can hold."""
    if isinstance(value, str):
        value = printable(value[: most + 1])
    return clipped(repr(value), most)


def few(names: Sequence[str], most: int = 5, separator: str = ', ') -> str:
    """Return the first names, and how many more there are."""
    rest = len(names) - most
    text = separator.join(names[:most])
    return f'{text} and {rest} more' if rest > 0 else text


def library(name: str, user: str) -> Any:
    """Import an optional library, or say who needs it.

    Args:
        name: Of the module; its package is called so too.
        user: What needs it, for the message.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        top = name.partition('.')[0]
        raise ImportError(f'{user} needs {top}: pip install {top}.') from error
