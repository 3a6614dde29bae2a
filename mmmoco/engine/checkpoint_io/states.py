"""Take the weights out of a checkpoint."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from mmengine.runner import CheckpointLoader
from torch import Tensor

from mmmoco.messages import few

from .fitting import layout_of
from .layouts import MapLocation
from .reading import CheckpointError, PathLike, read


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
    # The versions of the modules, by which they read older layouts
    versions = getattr(inner, '_metadata', None)
    if versions is not None:
        vars(weights)['_metadata'] = {
            name.removeprefix('module.'): version
            for name, version in versions.items()
        }
    return weights


def read_weights(
    path: PathLike, prefix: str = '', map_location: MapLocation = 'cpu'
) -> dict[str, Tensor]:
    """Read the weights of a file, or of one in the cache of a URL.

    Args:
        path: File, or a URL that mmengine loads.
        prefix: Take those below it, and leave it out of their names.
        map_location: As for ``torch.load``.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It cannot be read, or has nothing below the prefix.
    """
    if '://' in str(path):
        content = CheckpointLoader.load_checkpoint(str(path), map_location)
    else:
        content = read(path, map_location)
    weights = state_dict_of(content, str(path))
    if not prefix:
        return weights
    found = {
        name.removeprefix(prefix): value
        for name, value in weights.items()
        if name.startswith(prefix)
    }
    if not found:
        raise CheckpointError(
            f'{path} holds nothing below prefix={prefix!r}; '
            f'{layout_of(list(weights))}.'
        )
    return found
