"""What stands in a checkpoint: its weights, and what it tells of itself."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mmmoco.convert.config_text import read_config_text
from mmmoco.messages import few
from mmmoco.private_names import keep_versions

from .reading import CheckpointError, PathLike, read_any


def state_dict_of(
    checkpoint: Mapping[str, Any], source: str = 'the checkpoint'
) -> dict[str, Tensor]:
    """Return the weights in a checkpoint, without the prefix ``module.``.

    They stand under ``state_dict`` (OpenMMLab, MoCo), under ``model`` (MAE,
    DINO, timm) or are the checkpoint itself.

    Args:
        checkpoint: What a file holds.
        source: Its name, for the message.

    Raises:
        CheckpointError: There are none, or something else is among them.
    """
    inner = next(
        (
            checkpoint[name]
            for name in ('state_dict', 'model')
            if isinstance(checkpoint.get(name), Mapping)
        ),
        checkpoint,
    )
    strangers = [
        str(name)
        for name, value in inner.items()
        if not (isinstance(name, str) and isinstance(value, Tensor))
    ]
    if strangers or not inner:
        found = f'no tensors: {few(strangers)}' if inner else 'it is empty'
        raise CheckpointError(
            "No weights found under 'state_dict', under 'model' or at the top "
            f'of {source} ({found}).'
        )
    weights = OrderedDict(
        (name.removeprefix('module.'), value) for name, value in inner.items()
    )
    keep_versions(inner, weights, lambda name: name.removeprefix('module.'))
    return weights


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
