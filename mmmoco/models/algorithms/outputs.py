"""Small conversions between OpenMMLab's conventions and the algorithms."""

from collections.abc import Mapping

import torch
from torch import Tensor

from mmmoco.functional import Stats


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
