"""The config of a model, as its checkpoint tells it.

Of the words of a file only what ``plain_parts`` allows is built; of the rest
of its config numbers alone are read: mean and std, the range of the values,
and sizes.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import Tensor

from mmmoco.convert.anatomy import below, describe_backbone
from mmmoco.engine import checkpoint_io
from mmmoco.engine.evaluation.preprocessing import pixels_of_checkpoint
from mmmoco.engine.without_memory import check_complete
from mmmoco.messages import few, log_warning

from .image_steps import range_of, told_steps
from .plain_parts import BACKBONES, METHODS, RefusedError, plain


def config_of(checkpoint: str) -> Config:
    """Return the config of the model in a checkpoint, and of its images.

    Args:
        checkpoint: File of a pre-training run, or an imported or exported
            one.

    Returns:
        ``model``, ``default_scope``, ``eval_pipeline`` (how a single image
        becomes what the network sees), and ``input_range`` where it is told.
        The model is that of the pre-training where the file tells and holds
        all of it, else ``BackboneOnly``. The weights fit it.

    Raises:
        FileNotFoundError: If the file does not exist.
        CheckpointError: If it cannot be read, or its weights do not fit.
        ValueError: If it does not tell enough: a config has to be given.
    """
    if not Path(checkpoint).is_file():
        raise FileNotFoundError(f'Checkpoint {checkpoint!r} does not exist.')
    content = checkpoint_io.read(checkpoint)
    weights = checkpoint_io.state_dict_of(content, checkpoint)
    own = below(weights, 'backbone.')
    if not own:
        tops = few(sorted({name.split('.')[0] for name in weights}))
        raise checkpoint_io.CheckpointError(
            f'{checkpoint} holds no backbone.*, only {tops}: if it is of '
            'another library, use mmmoco import first.'
        )
    meta = content.get('meta')
    meta = meta if isinstance(meta, dict) else {}
    told = checkpoint_io.config_in(meta) or {}
    if 'input_range' in meta:
        told = {**told, 'input_range': meta['input_range']}
    try:
        seen = pixels_of_checkpoint(meta)
        model = told_model(meta, told)
        backbone = told_backbone(model.get('backbone'), own, checkpoint)
        found: dict[str, Any] = dict(
            default_scope='mmmoco',
            model=dict(type='mmmoco.BackboneOnly', backbone=backbone),
            eval_pipeline=told_steps(told, seen, backbone),
        )
        for span in range_of(told).values():
            found['input_range'] = span
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f'{checkpoint}: {error} Give its config with --config.'
        ) from error
    whole = _whole(model, weights)
    if whole:
        found['model'] = whole
    else:
        check_complete(own, backbone, source=checkpoint)
    found['model']['data_preprocessor'] = dict(
        type='mmmoco.ViewAugmentor', mean=seen.mean, std=seen.std
    )
    return Config(found)


def told_backbone(
    told: Any,
    weights: Mapping[str, Tensor],
    source: str,
    num_heads: int | None = None,
) -> dict[str, Any]:
    """Return the config of a backbone: what is told, else what tensors tell.

    Args:
        told: Its config, from the words of a file; None: nothing.
        weights: Its tensors by our names.
        source: The file, for messages.
        num_heads: Of a transformer, if only tensors tell.

    Raises:
        RefusedError: If what is told is not built, and no tensors tell it.
        ValueError: If nothing is told, and no tensors tell it.
    """
    if told is None:
        return describe_backbone(weights, num_heads)
    try:
        found: dict[str, Any] = plain(
            told, 'model.backbone', BACKBONES, BACKBONES
        )
    except RefusedError as refused:
        try:
            found = describe_backbone(weights, num_heads)
        except ValueError:
            raise refused from None
        log_warning(
            f'{source}: {refused} Its tensors are those of a '
            f'{found["type"]}, which is taken; they do not tell strides, '
            'dilations and the like: give its config with --config.'
        )
    return found


def told_model(
    meta: Mapping[str, Any], told: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a file says of its model, unchecked; empty if nothing."""
    imported = meta.get('imported')
    if isinstance(imported, Mapping):  # It may be a backbone alone.
        given = imported.get('model')
        if isinstance(given, Mapping) and 'backbone' not in given:
            given = {'backbone': given}
    else:
        given = told.get('model') or {'backbone': meta.get('backbone')}
    if not isinstance(given, Mapping):
        return {}
    return {n: v for n, v in given.items() if v is not None}


def _whole(
    model: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> dict[str, Any] | None:
    """Return the config of a pre-training model, if all of it is there."""
    inner = {k: v for k, v in model.items() if k != 'data_preprocessor'}
    # In many imports parts are not there; given anything, a part may raise
    # anything.
    with suppress(Exception):
        whole: dict[str, Any] = plain(
            inner, 'model', BACKBONES | METHODS, METHODS
        )
        check_complete(weights, whole)
        return whole
    return None
