"""What comes out of a network, told apart."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from mmmoco.private_names import Convolution
from mmmoco.registry import MODELS


class Tokens(NamedTuple):
    """What a vision transformer makes of N images.

    Attributes:
        cls: N×C, the class token.
        patches: N×(h·w)×C, one token for each patch.
    """

    cls: Tensor
    patches: Tensor


class Stage(NamedTuple):
    """What one stage of any network makes of N images.

    Attributes:
        cls: N×C, the class token, or the mean over the map.
        patches: N×C×h×w, patch tokens or map; None: it gives vectors.
    """

    cls: Tensor
    patches: Tensor | None


def split_tokens(
    outputs: Any, x: Tensor, patch_size: int, name: str
) -> Tokens:
    """Divide the raw output of a transformer into class and patch tokens.

    Raises:
        ValueError: If it is anything else.
    """
    tokens = outputs if isinstance(outputs, Tensor) else outputs[-1]
    patches = (x.shape[-2] // patch_size) * (x.shape[-1] // patch_size)
    if tokens.dim() != 3 or tokens.shape[1] != 1 + patches:
        raise ValueError(
            f'model.{name} returned {tuple(tokens.shape)} for images of '
            f'{x.shape[-2]}×{x.shape[-1]}; expected N×(1 + {patches})×C, '
            f'the class token and one for each patch of {patch_size}×'
            f"{patch_size}: use a vision transformer with out_type='raw' "
            f'and patch_size={patch_size}.'
        )
    return Tokens(tokens[:, 0], tokens[:, 1:])


def build_for_tokens(backbone: Mapping[str, Any]) -> nn.Module:
    """Build a backbone that gives all its tokens, or its maps."""
    kind = MODELS.get(str(backbone.get('type')))
    if hasattr(kind, 'OUT_TYPES'):
        backbone = {'out_type': 'raw', **backbone}
    built: Any = MODELS.build(backbone)
    model = getattr(built, 'timm_model', None)
    if model is not None and 'out_type' not in backbone:
        tells_cls = getattr(model, 'cls_token', None) is not None
        built.out_type = 'raw' if tells_cls else 'featmap'
        if isinstance(getattr(model, 'head', None), nn.Module):
            # It is not asked: several processes would wait for its gradient.
            model.head.requires_grad_(False)
    network: nn.Module = built
    return network


def patch_side(network: nn.Module) -> int:
    """Return the side of the patches that images are cut into; else 1."""
    for module in network.modules():
        if isinstance(module, Convolution):
            whole = module.kernel_size == module.stride
            return int(module.stride[0]) if whole else 1
    return 1


def stages_of(network: nn.Module, x: Tensor, name: str) -> list[Stage]:
    """Return what each stage of a network makes of images.

    Args:
        network: Gives maps, tokens or vectors.
        x: N×C×H×W.
        name: Of the network, for messages.

    Raises:
        ValueError: If it gives anything else.
    """
    outputs = network(x)
    if isinstance(outputs, Tensor):
        outputs = (outputs,)
    return [_stage(network, output, x, name) for output in outputs]


def _stage(network: nn.Module, output: Any, x: Tensor, name: str) -> Stage:
    dims = output.dim() if isinstance(output, Tensor) else 0
    if dims == 2:
        return Stage(output, None)
    if dims == 4:
        return Stage(output.mean((2, 3)), output)
    extra = getattr(network, 'num_extra_tokens', 1)
    height, width = x.shape[-2:]
    side = patch_side(network)
    if dims == 3:
        if height % side or width % side:
            raise ValueError(
                f'The images of model.{name} are {height}×{width}, no '
                f'multiple of its patch size {side}: choose sides that are.'
            )
        count = output.shape[1] - extra
        h = round((count * height / width) ** 0.5)
        if h and h * (count // h) == count:
            patches = output[:, extra:]
            has_cls = extra and getattr(network, 'cls_token', 1) is not None
            return Stage(
                output[:, 0] if has_cls else patches.mean(1),
                patches.transpose(1, 2).unflatten(2, (h, count // h)),
            )
    shape = tuple(output.shape) if dims else type(output).__name__
    raise ValueError(
        f'model.{name} ({type(network).__name__}) gives {shape} for images '
        f'of {height}×{width}; expected maps N×C×h×w, vectors N×C, or tokens '
        f'N×({extra} + h·w)×C.'
    )


def resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """Return images in another size; those of this size as they are.

    Args:
        x: N×C×H×W.
        size: Height and width.
    """
    if [*size] == [*x.shape[-2:]]:
        return x
    return F.interpolate(x.float(), size, mode='bicubic', antialias=True).to(
        x.dtype
    )
