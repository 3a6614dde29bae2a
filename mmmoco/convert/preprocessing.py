"""How the images were normalised that a foreign network has seen."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mmmoco.registry import bare_type

from .config_text import read_config_text
from .format import Format

#: As the papers normalise ImageNet, in grey levels.
IMAGENET: dict[str, Any] = dict(
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    channel_order='rgb',
    value_range=255,
)
#: As Meta normalised the satellite images of SAT-493M for DINOv3.
SAT493M: dict[str, Any] = IMAGENET | dict(
    mean=[109.65, 104.805, 75.48], std=[54.315, 39.78, 36.465]
)


def preprocessing_of(
    form: Format,
    weights: Mapping[str, Tensor],
    config: object = None,
    seen: Mapping[str, Any] | None = None,
) -> dict[str, Any] | None:
    """Return mean, std, order of the channels and range of the values.

    A config in the file counts; else what its layout's authors publish, if
    the network takes as many channels.

    Args:
        form: The layout of the file.
        weights: Tensors by our names.
        config: The config text in the file, if there is any.
        seen: What its tensors tell; None: as for its layout.

    Returns:
        ``mean``, ``std``, ``channel_order`` and ``value_range``, or None
        where they are not known.
    """
    if isinstance(config, str):
        return _of_config(config)
    seen = seen or (IMAGENET if form.imagenet else None)
    if seen and _channels(weights) == len(seen['mean']):
        return dict(seen)
    return None


def _of_config(text: str) -> dict[str, Any] | None:
    """Take the values from a config of OpenMMLab."""
    try:
        config = read_config_text(text)
    except ValueError:
        return None
    model = config.get('model')
    inside = model.get('data_preprocessor') if isinstance(model, dict) else {}
    outside = config.get('data_preprocessor')
    found: dict[str, Any] = {}
    for values in (outside, inside):
        if isinstance(values, dict):
            found.update(values)
    mean, std = _numbers(found.get('mean')), _numbers(found.get('std'))
    if not mean or len(mean) != len(std):
        return None
    # Theirs read BGR and turn it; ours read RGB and have no such field.
    ours = bare_type(found) in ('ViewAugmentor', 'MaskedViewAugmentor')
    turned = found.get('to_rgb') or found.get('bgr_to_rgb')
    return dict(
        mean=mean,
        std=std,
        channel_order='rgb' if ours or turned else 'bgr',
        value_range=255,
    )


def _numbers(values: Any) -> list[float]:
    """Return a row of numbers, empty if it is none."""
    if not isinstance(values, list | tuple):
        return []
    if not all(isinstance(value, int | float) for value in values):
        return []
    return [float(value) for value in values]


def _channels(weights: Mapping[str, Tensor]) -> int | None:
    """How many channels the first convolution of the backbone takes."""
    for name, value in weights.items():
        if name.startswith('backbone.') and value.dim() == 4:
            return value.shape[1]
    return None
