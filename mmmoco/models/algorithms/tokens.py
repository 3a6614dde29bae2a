"""What comes out of a vision transformer, told apart."""

from typing import Any, NamedTuple

from torch import Tensor


class Tokens(NamedTuple):
    """What a vision transformer makes of N images.

    Attributes:
        cls: N×C, the class token.
        patches: N×(h·w)×C, one token for each patch.
    """

    cls: Tensor
    patches: Tensor


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
