"""What a backbone gives, so that what follows it fits.

It is asked: shapes go through it on the meta device, without values.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mmmoco.private_names import Convolution
from mmmoco.registry import MODELS, bare_type

#: Side of the image with which a backbone is asked that names none.
SIDE = 224


def shapes_of(
    backbone: nn.Module, channels: int, size: Sequence[int] = (SIDE, SIDE)
) -> list[tuple[int, ...]] | None:
    """Return the shapes of what a backbone gives for two images.

    Args:
        backbone: Any; it stays as it is, and nothing is drawn.
        channels: Of the images.
        size: Height and width of the images.

    Returns:
        One shape for each output; None if it takes no such images, or has
        something in it that the meta device does not know.
    """
    tensors = [*backbone.named_parameters(), *backbone.named_buffers()]
    state = {n: torch.empty_like(x, device='meta') for n, x in tensors}
    modes = [(module, module.training) for module in backbone.modules()]
    images = torch.empty(2, channels, *size, device='meta')
    backbone.eval()
    try:
        with torch.no_grad():
            outputs = functional_call(backbone, state, (images,))
    except Exception:
        return None  # Foreign code may raise anything; it is asked only.
    finally:
        for module, training in modes:
            module.training = training
    if isinstance(outputs, Tensor):
        outputs = (outputs,)
    if not isinstance(outputs, list | tuple) or not all(
        isinstance(output, Tensor) for output in outputs
    ):
        return None
    return [tuple(output.shape) for output in outputs]


def image_channels(backbone: nn.Module) -> int | None:
    """Return how many channels the first convolution takes, if one does."""
    for module in backbone.modules():
        if isinstance(module, Convolution):
            return int(module.in_channels)
    return None


def size_of(backbone: Mapping[str, Any]) -> Sequence[int]:
    """Return the size of the images that a backbone's config is made for."""
    size = backbone.get('img_size') or SIDE
    return size if isinstance(size, list | tuple) else (size, size)


def check_channels(
    module: nn.Module, backbone: Mapping[str, Any], preprocessor: Any
) -> None:
    """Hold the channels that are normalised against the backbone's.

    Args:
        module: The backbone.
        backbone: Its config.
        preprocessor: With ``mean``, 1×C×1×1; others are not asked.

    Raises:
        ValueError: Naming both numbers.
    """
    mean = getattr(preprocessor, 'mean', None)
    taken = image_channels(module)
    if not isinstance(mean, Tensor) or taken in (None, mean.numel()):
        return
    given, size = mean.numel(), size_of(backbone)
    # Only if it takes the ones and refuses the others is it sure.
    if shapes_of(module, taken, size) and not shapes_of(module, given, size):
        raise ValueError(
            f'model.data_preprocessor has {given} value(s) of mean and std, '
            f'but model.backbone ({bare_type(backbone)}) takes images of '
            f'{taken} channel(s): set model.backbone.in_channels={given}, or '
            f'give {taken} value(s) of mean and std each.'
        )


def build_neck(
    neck: Mapping[str, Any], module: nn.Module, backbone: Mapping[str, Any]
) -> nn.Module:
    """Build a neck that fits what the backbone gives.

    ``in_channels``, if it is left out or None, becomes the width of the
    backbone's last output. For necks of mmpretrain, which take one output:
    of several the last counts, vectors are not pooled, and a width that does
    not fit is refused.

    Args:
        neck: Config.
        module: The backbone.
        backbone: Its config.

    Raises:
        ValueError: If they do not fit, naming both widths.
    """
    neck = dict(neck)
    kind = MODELS.get(str(neck.get('type')))
    known = inspect.signature(kind).parameters if kind else {}
    if 'in_channels' not in known:
        return _built(neck)
    name = f'model.backbone ({bare_type(backbone)})'
    channels = image_channels(module) or 3
    shapes = shapes_of(module, channels, size_of(backbone)) or (
        # Windows may be larger than what its images come down to.
        shapes_of(module, channels)
    )
    given = neck.get('in_channels')
    if not shapes:
        if given is not None:
            return _built(neck)
        raise ValueError(
            f'{name} does not tell the width of its output: set '
            'model.neck.in_channels.'
        )
    last = shapes[-1]
    if not kind.__module__.startswith('mmpretrain.'):
        neck['in_channels'] = last[1] if given is None else given
        return _built(neck)
    order = getattr(getattr(module, 'timm_model', None), 'output_fmt', None)
    by_pixel = len(last) == 4 and str(order).endswith('NHWC')
    if 'num_grid' in known and (len(last) != 4 or by_pixel):
        raise ValueError(
            f'{name} gives {_dims(last)}, but model.neck projects the cells '
            "of a map N×C×H×W: set model.backbone.out_type='featmap' for a "
            'ViT, gap_before_final_norm=False for a ConvNeXt.'
        )
    if len(last) not in (2, 4) or by_pixel:
        raise ValueError(
            f'{name} gives {_dims(last)}, no map N×C×H×W and no vector N×C, '
            'which model.neck needs: for a model of timm set '
            "model.backbone.type='mmmoco.TimmBackbone'; else choose another "
            "out_type ('cls_token', 'avg_featmap')."
        )
    pooled = len(last) == 2
    if pooled:
        for pooling, off in (('with_avg_pool', False), ('gap_dim', 0)):
            if pooling in known:
                neck[pooling] = off
    flat = neck.get('with_avg_pool') is False or neck.get('gap_dim') == 0
    if flat and not pooled:
        if given is None:
            option = (
                'gap_dim=2' if 'gap_dim' in known else 'with_avg_pool=True'
            )
            raise ValueError(
                f'{name} gives maps of {last[1]} channels, and model.neck '
                f'does not pool them: set model.neck.{option}.'
            )
        return _built(neck)  # Its width depends on the size of the images.
    if given is not None and given != last[1]:
        raise ValueError(
            f'model.neck.in_channels={given}, but {name} gives {last[1]}: '
            f'leave it out, or set model.neck.in_channels={last[1]}.'
        )
    neck['in_channels'] = last[1]
    built = _built(neck)
    if len(shapes) > 1:
        built.register_forward_pre_hook(_last_of)
    return built


def check_width(neck: Mapping[str, Any], place: str, part: Any) -> None:
    """Hold what takes a neck's output against its width, before it is built.

    Args:
        neck: Config.
        place: Where the part stands in ``model``.
        part: Its config.

    Raises:
        ValueError: Naming both widths.
    """
    width = neck.get('out_channels')
    for name in ('feat_dim', 'in_channels', 'out_channels'):
        given = (part or {}).get(name, width)
        if isinstance(width, int) and given != width:
            raise ValueError(
                f'model.{place}.{name}={given}, but model.neck.out_channels='
                f'{width}: give both the same width.'
            )


def fit_heads(
    heads: Mapping[str, Mapping[str, Any]], width: int
) -> dict[str, dict[str, Any]]:
    """Return configs of heads that take tokens of a width.

    Args:
        heads: Configs by name; ``in_channels``, in a head or its projector,
            may be left out.
        width: Of the tokens.

    Raises:
        ValueError: If one says another width.
    """
    fitted = {name: dict(head) for name, head in heads.items()}
    for name, head in fitted.items():
        place, part = f'model.heads.{name}', head
        if 'projector' in head:
            place = f'{place}.projector'
            part = head['projector'] = dict(head['projector'])
        given = part.get('in_channels')
        if given not in (None, width):
            raise ValueError(
                f'{place}.in_channels={given}, but the tokens of '
                f'model.backbone have {width}: leave it out.'
            )
        part['in_channels'] = width
    return fitted


def _dims(shape: Sequence[int]) -> str:
    return '×'.join(map(str, ('N', *shape[1:])))


def _built(neck: Mapping[str, Any]) -> nn.Module:
    built: nn.Module = MODELS.build(neck)
    return built


def _last_of(neck: nn.Module, given: tuple[Any, ...]) -> Any:
    """Give a neck the last of a backbone's outputs."""
    outputs, *rest = given
    if isinstance(outputs, list | tuple):
        outputs = tuple(outputs[-1:])
    return (outputs, *rest)
