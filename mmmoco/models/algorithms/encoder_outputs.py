"""Small conversions between OpenMMLab's conventions and the algorithms."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmmoco.functional import Stats


class Tokens(NamedTuple):
    """What a vision transformer makes of N images.

    Attributes:
        cls: N×C, the class token.
        patches: N×(h·w)×C, one token for each patch.
    """

    cls: Tensor
    patches: Tensor


def look_up_log(*stats: Stats) -> dict[str, Tensor]:
    """The statistics under the names of the log, averaged over look-ups."""

    def mean(values: list[Tensor]) -> Tensor:
        return torch.stack(values).mean()

    return {
        'pos_sim': mean([s.positive_similarity for s in stats]),
        'neg_sim': mean([s.negative_similarity for s in stats]),
        'top1': mean([s.top1 for s in stats]),
    }


def last_output(outputs: Tensor | tuple[Tensor, ...]) -> Tensor:
    """OpenMMLab's backbones and necks return tuples; take the last."""
    return outputs if isinstance(outputs, Tensor) else outputs[-1]


def only_view(inputs: Mapping[str, Tensor]) -> Tensor:
    """Return the one image of a batch that features are taken of.

    Raises:
        ValueError: If there are several and none is called ``image``.
    """
    if len(inputs) == 1:
        return next(iter(inputs.values()))
    if 'image' in inputs:
        return inputs['image']
    raise ValueError(
        f'Features are taken of one image, but the batch holds '
        f"{sorted(inputs)}: name one of them 'image'."
    )


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
