"""Backbones by the short names of timm and of mmpretrain."""

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor

from mmmoco.engine.without_memory import build_without_memory
from mmmoco.private_names import BatchNorm
from mmmoco.registry import MODELS

_RESNET = re.compile(r'resnet(18|34|50|101|152)')
_VIT = re.compile(
    r'(?:vit|deit)_(tiny|small|base|large)(?:_p(?:atch)?(\d+))?'
    r'(?:_(?:\d|pt_).*)?'
)
#: Width, blocks and heads, as timm has them.
_VITS = {
    'tiny': (192, 12, 3),
    'small': (384, 12, 6),
    'base': (768, 12, 12),
    'large': (1024, 24, 16),
}
EXAMPLES = 'resnet18, resnet50, vit_small_patch16_224, convnext_tiny'


@dataclass(frozen=True)
class Backbone:
    """A network and what its surroundings must know.

    Attributes:
        name: As it was found, for the reader.
        config: Of the class that builds it.
        width: Of its features.
        pooled: Whether they are vectors already, no map of pixels.
        batch_norm: Whether it normalises over the batch.
        is_vit: Whether it is a vision transformer.
    """

    name: str
    config: dict[str, Any]
    width: int
    pooled: bool
    batch_norm: bool
    is_vit: bool

    @property
    def takes_norm(self) -> bool:
        """Whether another BatchNorm can be put in."""
        kind = MODELS.get(self.config['type'])
        return isinstance(kind, type) and any(
            'norm_cfg' in inspect.signature(vars(base)['__init__']).parameters
            for base in kind.__mro__
            if '__init__' in vars(base)
        )


def find_backbone(name: str, channels: int, size: int) -> Backbone:
    """Return the backbone of a name, made for images of a size.

    Args:
        name: Of timm (``resnet50``, ``vit_small_patch16_224``) or of
            mmpretrain (``convnext-tiny``, ``resnet50_8xb32_in1k``).
        channels: Of the images.
        size: Side of the views.

    Raises:
        ValueError: If there is none, or it cannot be trained here.
    """
    # What follows a dot names weights; here all begins at random.
    plain = name.lower().partition('.')[0].replace('-', '_')
    refused = None
    for title, config in _candidates(plain, channels, size):
        try:
            place = f'--backbone {title}'
            return measured(place, title, config, channels, size)
        except ValueError as error:
            refused = refused or error
    if refused:
        raise refused
    raise ValueError(
        f'--backbone {name!r}: there is none. {_near(plain)}Names are those '
        f'of timm and of mmpretrain, for example {EXAMPLES}.'
    )


def _candidates(
    name: str, channels: int, size: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what a name can mean, the best first."""
    given = {} if channels == 3 else dict(in_channels=channels)
    resnet = _RESNET.match(name)
    if resnet and name[resnet.end() : resnet.end() + 1] in ('', '_'):
        kind = dict(type='mmpretrain.ResNet', depth=int(resnet[1]))
        yield resnet[0], kind | dict(out_indices=(3,)) | given
    vit = _VIT.fullmatch(name)
    if vit:
        yield name, _vit(vit[1], int(vit[2] or 16), size) | given
    # timm adds the size, mmpretrain the recipe: swin_tiny_patch4_window7_224.
    zoo = _zoo_config(name) or _zoo_config(re.sub(r'_patch\d+.*', '', name))
    if zoo:
        known, kind = zoo
        kind['type'] = f'mmpretrain.{kind["type"]}'
        yield known, kind | given
    if name in _timm_names():
        kind = dict(type='mmpretrain.TIMMBackbone', model_name=name)
        yield name, kind | dict(in_channels=channels)


def _vit(kind: str, patch: int, size: int) -> dict[str, Any]:
    width, depth, heads = _VITS[kind]
    if not 0 < patch <= size:
        raise ValueError(
            f'--backbone: patches of {patch} pixels do not fit views of '
            f'{size}; usual are 14 and 16.'
        )
    if size % patch:
        near = max(patch, round(size / patch) * patch)
        raise ValueError(
            f'--image-size {size} is no multiple of the patches of {patch} '
            f'pixels: take {near}.'
        )
    return dict(
        type='MoCoV3ViT',
        arch=dict(
            embed_dims=width,
            num_layers=depth,
            num_heads=heads,
            feedforward_channels=4 * width,
        ),
        img_size=size,
        patch_size=patch,
        stop_grad_conv1=True,
    )


def _zoo_config(name: str) -> tuple[str, dict[str, Any]] | None:
    """Return the name and backbone of a model of mmpretrain's zoo."""
    found = [
        known
        for known in _zoo_names()
        if f'{known.replace("-", "_")}_'.startswith(f'{name}_')
    ]
    from mmpretrain.apis.model import ModelHub

    for known in sorted(found, key=len):
        model = ModelHub.get(known).config.get('model') or {}
        backbone = model.get('backbone')
        if backbone and isinstance(backbone.get('type'), str):
            kind: dict[str, Any] = backbone.to_dict()
            kind.pop('init_cfg', None)
            return known, kind
    return None


def _zoo_names() -> list[str]:
    from mmpretrain.apis import list_models

    names: list[str] = list_models()
    return names


def _timm_names() -> list[str]:
    try:
        import timm
    except ImportError:
        return []
    names: list[str] = timm.list_models()
    return names


def _near(name: str) -> str:
    """Return the nearest names, as a sentence."""
    shorts = {n.partition('_')[0].replace('-', '_') for n in _zoo_names()}
    resnets = [f'resnet{depth}' for depth in (18, 34, 50, 101, 152)]
    vits = [f'vit_{kind}_patch16_224' for kind in _VITS]
    known = sorted({*resnets, *vits, *shorts, *_timm_names()})
    near = get_close_matches(name, known, n=3, cutoff=0.6)
    return f'Did you mean {", ".join(near)}? ' if near else ''


def measured(
    place: str, name: str, config: dict[str, Any], channels: int, size: int
) -> Backbone:
    """Return a backbone with the facts that its output tells.

    Args:
        place: What named it, for messages.
        name: For the reader.
        config: Of the class that builds it.
        channels: Of the images.
        size: Side of the views.

    Raises:
        ValueError: If it cannot be built, takes no such images, or gives
            neither a vector nor a map.
    """
    cfg = Config(dict(model=config, default_scope='mmmoco'))
    try:
        module = build_without_memory(cfg)
        module.eval()  # Some of mmpretrain's return nothing.
        with torch.no_grad():
            images = torch.zeros(2, channels, size, size, device='meta')
            output: Tensor = _last(module(images))
    except Exception as error:
        reason = f'{type(error).__name__}: {error}'.splitlines()[0][:200]
        raise ValueError(
            f'{place}: it cannot take images of {size}×{size} pixels and '
            f'{channels} channels here ({reason}). These can: {EXAMPLES}.'
        ) from error
    width = _width(output)
    if width is None:
        raise ValueError(
            f'{place}: its output {tuple(output.shape)} is neither a vector '
            f'nor a map of pixels, so it has no place here. These can: '
            f'{EXAMPLES}.'
        )
    norms = [m for m in module.modules() if isinstance(m, BatchNorm)]
    is_vit = hasattr(module, 'cls_token')
    pooled = output.dim() == 2
    return Backbone(name, config, width, pooled, bool(norms), is_vit)


def _last(output: Any) -> Any:
    if isinstance(output, Mapping):
        raise TypeError('it returns a dict')
    if not isinstance(output, list | tuple):
        return output
    if len(output) > 1:
        raise TypeError(f'it returns {len(output)} maps, one is wanted')
    return output[-1]


def _width(output: Tensor) -> int | None:
    """Return the width of the features; None: they are no vector or map."""
    shape = output.shape
    if len(shape) == 4 and shape[2] == shape[3]:
        return shape[1]
    return shape[1] if len(shape) == 2 else None
