"""What a checkpoint tells about itself, beside its weights."""

from collections.abc import Mapping
from typing import Any

from mmmoco.convert.config_text import read_config_text

from .reading import PathLike, read_any


def read_meta(path: PathLike) -> dict[str, Any]:
    """Read the ``meta`` of a checkpoint; its tensors stay on the disk.

    Returns:
        Empty if there is none.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It cannot be read, as by :func:`read`.
    """
    content = read_any(path, only='meta')
    meta = content.get('meta') if isinstance(content, Mapping) else None
    return meta if isinstance(meta, dict) else {}


def config_in(meta: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the config that made a checkpoint, read as text.

    Args:
        meta: Of the checkpoint; not trusted.

    Returns:
        None if it is not there, or holds more than plain values.
    """
    text = meta.get('cfg') or meta.get('config_text')
    if not isinstance(text, str):
        return None
    try:
        return read_config_text(text)
    except ValueError:
        return None
