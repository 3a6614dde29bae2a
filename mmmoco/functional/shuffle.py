"""ShuffleBN: the samples that BatchNorm sees together on the key path.

Query and key of one image must not be normalised with the same companions,
else the network finds the positive by the statistics instead of by the image
(MoCo v1, section 3.3). On several processes the key batch is permuted over
all of them; on one process a permutation inside the batch, together with
:class:`mmmoco.models.norms.SplitBN`, has the same effect.
"""

from typing import NamedTuple

import torch
from mmengine.dist import get_rank, get_world_size
from torch import Tensor

from .gather import gather
from .randomness import generator


class ShufflePlan(NamedTuple):
    """Which rows of the joint batch a process encodes, and the way back.

    Attributes:
        take: N indices into the joint (world · N) batch.
        restore: N positions of this process's own rows in the joint result.
    """

    take: Tensor
    restore: Tensor


def shuffle_plan(
    batch: int, seed: int, step: int, device: torch.device
) -> ShufflePlan:
    """Draw the permutation of one step, the same on every process.

    Args:
        batch: Images on each process (N).
        seed: Seed of the run.
        step: Training iteration.
        device: Where the indices are needed.
    """
    rank, world = get_rank(), get_world_size()
    order = torch.randperm(
        batch * world, generator=generator(seed, step, 'shuffle')
    )
    own = slice(rank * batch, (rank + 1) * batch)
    return ShufflePlan(
        take=order[own].to(device), restore=order.argsort()[own].to(device)
    )


def unshuffle(encoded: Tensor, plan: ShufflePlan) -> Tensor:
    """Return this process's own rows of what all processes encoded.

    Args:
        encoded: N×C, the rows ``plan.take`` of the joint batch.
        plan: The plan that chose them.
    """
    return gather(encoded)[plan.restore]
