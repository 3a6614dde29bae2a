"""Take the weights out of a checkpoint and put all of them into a module."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from mmengine.model import is_model_wrapper
from torch import Tensor, nn

from .reading import CheckpointError


def state_dict_of(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the weights in a checkpoint, without the prefix ``module.``.

    They stand under ``state_dict`` (OpenMMLab, MoCo), under ``model`` (MAE,
    DINO, timm) or are the checkpoint itself.

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
        found = f'no tensors: {_few(strangers)}' if inner else 'it is empty'
        raise CheckpointError(
            "No weights found under 'state_dict', under 'model' or at the top "
            f'of the checkpoint ({found}).'
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


def load_into(
    module: nn.Module,
    state_dict: Mapping[str, Tensor],
    *,
    allow_missing: Iterable[str] = (),
    allow_unexpected: Iterable[str] = (),
) -> None:
    """Load weights strictly: every key on both sides, in its shape.

    Args:
        module: What is filled; half filled when the load fails.
        state_dict: Its weights, from :func:`state_dict_of`.
        allow_missing: Shell patterns (``head.*``) of keys that the weights
            may lack; they keep their values.
        allow_unexpected: Patterns of keys that the module may lack; they are
            left out.

    Raises:
        CheckpointError: Anything else differs; lists all of it.
    """
    target: Any = module.module if is_model_wrapper(module) else module
    missing, unexpected, misshapen = _load(target, state_dict)
    missing = _outside(missing, allow_missing)
    unexpected = _outside(unexpected, allow_unexpected)
    groups = [
        ('missing in the checkpoint', missing),
        ('unknown to the module', unexpected),
        ('of another shape (checkpoint, module)', misshapen),
    ]
    lines = [
        f'  {len(names)} {title}:\n    ' + '\n    '.join(names)
        for title, names in groups
        if names
    ]
    if lines:
        raise CheckpointError(
            f'The weights do not fit {type(target).__name__} '
            f'({len(state_dict)} keys given):\n' + '\n'.join(lines)
        )


def _load(
    module: nn.Module, state_dict: Mapping[str, Tensor]
) -> tuple[list[str], list[str], list[str]]:
    # The module itself says what is missing: it may rename or resize while
    # loading. Only wrong shapes make it raise without the rest of the list.
    try:
        result = module.load_state_dict(state_dict, strict=False)
    except RuntimeError as error:
        own = {name: value.shape for name, value in _tensors(module)}
        misshapen = {
            name: f'{name} {tuple(value.shape)}, {tuple(own[name])}'
            for name, value in state_dict.items()
            if name in own and value.shape != own[name]
        }
        if not misshapen:
            raise CheckpointError(str(error)) from error
        rest = {
            name: value
            for name, value in state_dict.items()
            if name not in misshapen
        }
        result = module.load_state_dict(rest, strict=False)
    else:
        misshapen = {}
    missing = [name for name in result.missing_keys if name not in misshapen]
    return missing, list(result.unexpected_keys), list(misshapen.values())


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, value in module.state_dict().items():
        if isinstance(value, Tensor):
            yield name, value


def _outside(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    allowed = tuple(patterns)
    return [
        name
        for name in names
        if not any(fnmatchcase(name, pattern) for pattern in allowed)
    ]


def _few(names: list[str]) -> str:
    return ', '.join(names[:5]) + (' …' if len(names) > 5 else '')
