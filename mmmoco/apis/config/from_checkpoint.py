"""The config of a model, as its checkpoint tells it.

A checkpoint comes from anybody, and a ``type`` is any name that Python can
import. So networks and layers of closed lists only are built from what a file
says, and of the rest of its config numbers alone are read: mean and std, the
range of the values, and sizes. Initialisation, data sets, transforms, hooks,
imports, paths and URLs are not.
"""

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import EllipsisType
from typing import Any

from mmengine.config import Config
from torch import Tensor

from mmmoco.convert.anatomy import below, describe_backbone
from mmmoco.datasets.transforms.loading import checked_range
from mmmoco.engine import checkpoint_io
from mmmoco.engine.evaluation.preprocessing import (
    Preprocessing,
    preprocessing_of,
    preprocessing_of_checkpoint,
    preprocessing_of_training,
)
from mmmoco.messages import few, shortened
from mmmoco.registry import bare_type, dicts_in

from .without_memory import check_complete

#: Networks of ours, and of mmpretrain, and the layers that they are made of.
BACKBONES = {
    **dict.fromkeys(('MoCoV3ResNet', 'MoCoV3ViT', 'PlainConvNet'), 'mmmoco'),
    **dict.fromkeys(
        (
            *('ResNet', 'ResNeXt', 'ResNet_CIFAR', 'ResNetV1d', 'SEResNet'),
            *('SEResNeXt', 'VisionTransformer', 'SwinTransformer'),
            *('ConvNeXt', 'RegNet', 'HRNet', 'DenseNet', 'VGG'),
            *('MobileNetV2', 'MobileNetV3', 'ShuffleNetV2', 'EfficientNet'),
            'TIMMBackbone',
        ),
        'mmpretrain',
    ),
}
LAYERS = {
    *('BN', 'BN1d', 'BN2d', 'SyncBN', 'SplitBN', 'GN', 'LN', 'LN2d'),
    *('ReLU', 'ReLU6', 'GELU', 'HSwish', 'Swish', 'SiLU'),
}
#: What a whole pre-training model has beside its backbone.
METHODS = {
    **dict.fromkeys(('MoCoV1', 'MoCoV2', 'MoCoV3', 'MMC'), 'mmmoco'),
    **dict.fromkeys(('Queue', 'InBatch', 'MemoryBank', 'InfoNCE'), 'mmmoco'),
    **dict.fromkeys(
        ('ReconstructionHead', 'PatchDistillationHead', 'CLSContrastHead'),
        'mmmoco',
    ),
    **dict.fromkeys(
        ('LinearNeck', 'NonLinearNeck', 'MoCoV2Neck'), 'mmpretrain'
    ),
}
#: timm reads files and asks servers for other arguments than these.
_OF_TIMM = {
    *('type', 'model_name', 'in_channels', 'features_only', 'img_size'),
    *('out_indices', 'drop_path_rate', 'patch_size'),
}
#: Left out wherever they stand: where weights, or a first value, come from.
_LEFT_OUT = ('init_cfg', 'pretrained', 'checkpoint', 'checkpoint_path')
_NAME = re.compile(r'[A-Za-z0-9_+-]{1,64}')
_DOTTED = re.compile(r'[A-Za-z0-9_+-]{1,64}(\.[A-Za-z0-9_+-]{1,64})?')
#: So often a layer may be repeated, and so large any number may be.
_MOST_LAYERS, _MOST = 1024, 1 << 31
_COUNTS = re.compile('depth|layers|blocks|stages|convs|branches|modules')
#: Of a side.
_MOST_PIXELS = 8192
_INTERPOLATIONS = ('nearest', 'bilinear', 'bicubic', 'lanczos', 'box')


class _RefusedError(ValueError):
    """What is not built, or taken, from the words of a file."""


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
    meta = content.get('meta')
    meta = meta if isinstance(meta, dict) else {}
    told = checkpoint_io.config_in(meta) or {}
    own = below(weights, 'backbone.')
    if not own:
        tops = few(sorted({name.split('.')[0] for name in weights}))
        raise checkpoint_io.CheckpointError(
            f'{checkpoint} holds no backbone.*, only {tops}: if it is of '
            'another library, use mmmoco import first.'
        )
    try:
        seen = _seen(meta)
        model = _told_model(meta, told)
        backbone, whole = _parts(model, own)
        found: dict[str, Any] = dict(
            default_scope='mmmoco',
            model=dict(type='mmmoco.BackboneOnly', backbone=backbone),
            eval_pipeline=_pipeline(meta, told, seen, backbone),
        )
        if (span := _input_range(meta, told)) is not Ellipsis:
            found['input_range'] = span
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f'{checkpoint}: {error} Give its config with --config.'
        ) from error
    preprocessor = dict(
        type='mmmoco.ViewAugmentor', mean=seen.mean, std=seen.std
    )
    if whole:
        try:
            check_complete(weights, whole, source=checkpoint)
            found['model'] = whole
        except (checkpoint_io.CheckpointError, TypeError, ValueError):
            whole = None  # Parts of it are not there, as in many imports.
    if not whole:
        check_complete(own, backbone, source=checkpoint)
    cfg = Config(found)
    cfg.model.data_preprocessor = preprocessor
    return cfg


def usual_steps(cfg: Config, size: int | None = None) -> list[dict[str, Any]]:
    """Return transforms by which the model of a config sees an image file.

    Args:
        cfg: Config of a training.
        size: Side of what it sees; default: as in its evaluation, or as
            large as in its training.

    Raises:
        ValueError: If size and channels in it do not fit each other.
    """
    told, seen = cfg.to_dict(), preprocessing_of_training(cfg)
    if size is not None:
        told.pop('knn', None)
        seen = seen._replace(crop=(size,), resize=None)
    return _pipeline({}, told, seen, cfg.model.backbone)


def plain_backbone(node: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the config of a backbone, if it may be built.

    Args:
        node: From the words of a file, not trusted.
    """
    try:
        return _plain(node, 'model.backbone', BACKBONES, BACKBONES)
    except _RefusedError:
        return None


def _told_model(
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


def _parts(
    model: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return the config of the backbone, and that of the whole model.

    Raises:
        ValueError: If the file names no backbone that may be built, and its
            tensors tell none.
    """
    try:
        if 'backbone' not in model:
            raise _RefusedError('it does not say what its backbone is.')
        given = model['backbone']
        backbone = _plain(given, 'model.backbone', BACKBONES, BACKBONES)
    except _RefusedError as refused:
        try:
            return describe_backbone(weights), None
        except ValueError:
            raise refused from None
    inner = {k: v for k, v in model.items() if k != 'data_preprocessor'}
    try:
        return backbone, _plain(inner, 'model', BACKBONES | METHODS, METHODS)
    except _RefusedError:
        return backbone, None


def _plain(
    node: Any,
    place: str,
    known: Mapping[str, str],
    outermost: Mapping[str, str] | None = None,
) -> Any:
    """Return a part of a model's config, if all of it may be built.

    Args:
        node: From the words of a file.
        place: Where it stands.
        known: What may be built beside layers, and the scope of each.
        outermost: What the node itself may be; default: the same.

    Raises:
        _RefusedError: If it holds anything else.
    """
    if isinstance(node, Mapping):
        return _plain_dict(node, place, known, outermost)
    if isinstance(node, list | tuple):
        return [_plain(v, f'{place}[{i}]', known) for i, v in enumerate(node)]
    name = place.rpartition('.')[2]
    if isinstance(node, str):
        pattern = _DOTTED if name == 'model_name' else _NAME
        allowed = pattern.fullmatch(node) is not None
    elif isinstance(node, int | float):
        most = _MOST_LAYERS if _COUNTS.search(name) else _MOST
        allowed = math.isfinite(node) and abs(node) <= most
    else:
        allowed = node is None
    if not allowed:
        raise _RefusedError(
            f'it says {place}={shortened(node)}, which is not taken from a '
            'file.'
        )
    return node


def _plain_dict(
    node: Mapping[Any, Any],
    place: str,
    known: Mapping[str, str],
    outermost: Mapping[str, str] | None,
) -> dict[str, Any]:
    kept = {k: v for k, v in node.items() if k not in _LEFT_OUT}
    if not all(isinstance(k, str) and _NAME.fullmatch(k) for k in kept):
        raise _RefusedError(f'it has odd names in {place}.')
    result = {
        k: _plain(v, f'{place}.{k}', known)
        for k, v in kept.items()
        if k != 'type'
    }
    if 'type' not in kept and not outermost:
        return result
    kind = kept.get('type')
    scope, _, name = str(kind).rpartition('.')
    scopes = {*(outermost or known).values(), ''}
    if name in (outermost or known) and scope in scopes:
        kind = f'{known[name]}.{name}'
    elif outermost or name not in LAYERS or scope not in scopes:
        raise _RefusedError(
            f'it says {place}.type={shortened(kind)}, which is not built from '
            'what a file says.'
        )
    if name == 'TIMMBackbone' and not set(kept) <= _OF_TIMM:
        raise _RefusedError(f'it gives {place} more than {sorted(_OF_TIMM)}.')
    return {'type': kind, **result}


# ------------------------------------------------------------------- images


def _seen(meta: Mapping[str, Any]) -> Preprocessing:
    """Return how images reached the network, mean and std as of bytes.

    Raises:
        ValueError: If it is not told, or not what is done here.
    """
    seen = preprocessing_of_checkpoint(meta)
    if seen is None or seen.mean is None or seen.std is None:
        raise ValueError('it does not tell how its images were normalised.')
    if seen.channel_order == 'bgr':
        raise ValueError('its images were BGR; here they are read as RGB.')
    numbers = (*seen.mean, *seen.std)
    if len(seen.mean) != len(seen.std) or not all(map(math.isfinite, numbers)):
        raise ValueError(
            f'it says mean={shortened(seen.mean)}, std={shortened(seen.std)}.'
        )
    factor = 255.0 if seen.value_range == 1.0 else 1.0
    return seen._replace(
        mean=tuple(factor * x for x in seen.mean),
        std=tuple(factor * x for x in seen.std),
    )


def _input_range(
    meta: Mapping[str, Any], told: Mapping[str, Any]
) -> list[float] | EllipsisType | None:
    """Return the range of 16-bit images; ``...``: it is not told."""
    for words in (meta, told):
        if 'input_range' in words:
            found = checked_range(words['input_range'])
            return None if found is None else list(found)
    loads = _named(_trained_with(told), 'LoadRGB')
    given = next((x['range'] for x in loads if x.get('range')), ...)
    if given is ... or given == 'auto':
        return ...
    found = checked_range(given)
    return None if found is None else list(found)


def _pipeline(
    meta: Mapping[str, Any],
    told: Mapping[str, Any],
    seen: Preprocessing,
    backbone: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Return transforms of ours; only their numbers are the file's."""
    channels: int = backbone.get('in_channels', 3)
    means = len(seen.mean or ())
    if means and means not in (1, channels):
        raise ValueError(
            f'its backbone takes {channels} channels, and its mean has '
            f'{means}.'
        )
    crop, resize, interpolation = _sizes(told, seen, backbone)
    load: list[dict[str, Any]]
    see: list[dict[str, Any]]
    if channels == 3:
        span = _input_range(meta, told)
        given = {} if span is ... else {'range': span}
        load = [
            dict(type='mmmoco.LoadRGB', **given),
            dict(type='mmmoco.ToPIL'),
        ]
        torchvision = 'mmpretrain.torchvision/'
        see = [
            dict(
                type=f'{torchvision}Resize',
                size=resize,
                interpolation=interpolation,
            ),
            dict(type=f'{torchvision}CenterCrop', size=crop),
        ]
    else:
        load = _load_bands(told, channels)
        # Bands are no picture of PIL's: the largest square in the middle.
        see = [
            dict(
                type='mmmoco.FastRandomResizedCrop',
                size=max(crop),
                scale=[1.0, 1.0],
                ratio=[1.0, 1.0],
            )
        ]
    return [*load, *see, dict(type='mmmoco.PackImage')]


def _sizes(
    told: Mapping[str, Any], seen: Preprocessing, backbone: Mapping[str, Any]
) -> tuple[list[int], int, str]:
    """Return crop (height, width), edge before it, and interpolation.

    As in the k-NN of the run, else as large as its training's views, else as
    the backbone says.
    """
    knn = told.get('knn')
    query = knn.get('query') if isinstance(knn, Mapping) else None
    data = query.get('dataset') if isinstance(query, Mapping) else None
    steps = data.get('pipeline') if isinstance(data, Mapping) else None
    own = preprocessing_of({}, steps if isinstance(steps, list) else ())
    side = backbone.get('img_size', 224)
    crop = (
        own.crop or seen.crop or (side if isinstance(side, list) else [side])
    )
    crop = [crop[0], crop[-1]]
    resize = min(crop)
    if own.resize:
        resize = own.resize[0]
    elif not steps:  # Where there are some, whole images are seen.
        resize = round(resize * 256 / 224)
    way = own.interpolation or seen.interpolation
    if not all(
        type(x) is int and 0 < x <= _MOST_PIXELS for x in (*crop, resize)
    ):
        raise ValueError(f'it says that its images have {crop} pixels.')
    return crop, resize, way if way in _INTERPOLATIONS else 'bilinear'


def _load_bands(
    told: Mapping[str, Any], channels: int
) -> list[dict[str, Any]]:
    """Return what reads so many bands, and makes bytes of them."""
    trained = _trained_with(told)
    load: dict[str, Any] = dict(type='mmmoco.LoadBands')
    for given in _named(trained, 'LoadBands'):
        bands = given.get('bands')
        if isinstance(bands, list | tuple) and len(bands) == channels:
            load['bands'] = _plain(list(bands), 'bands', {})
    for given in _named(trained, 'ScaleBands'):
        low, high = (
            _plain(given.get(n), f'ScaleBands.{n}', {})
            for n in ('low', 'high')
        )
        return [load, dict(type='mmmoco.ScaleBands', low=low, high=high)]
    return [load]


def _trained_with(told: Mapping[str, Any]) -> Any:
    """Return the transforms of the training images."""
    loader = told.get('train_dataloader')
    data = loader.get('dataset') if isinstance(loader, Mapping) else None
    return data.get('pipeline') if isinstance(data, Mapping) else None


def _named(node: Any, name: str) -> Iterator[Any]:
    return (part for part in dicts_in(node) if bare_type(part) == name)
