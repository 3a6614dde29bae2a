"""ShuffleBN decides which samples BatchNorm sees together on the key path.

Query and key of one image must not be normalised with the same companions,
else the network finds the positive by the statistics instead of by the image
(MoCo v1, section 3.3). On several processes the key batch is permuted over
all of them: every process sends each other one only the rows that it is to
encode. On one process a permutation inside the batch, together with
:class:`mmmoco.models.norms.SplitBN`, has the same effect.
"""

from typing import NamedTuple

import torch
from mmengine.dist import get_rank, get_world_size
from torch import Tensor

from .collectives import all_to_all
from .randomness import generator
from .transfer import send


class ShufflePlan(NamedTuple):
    """Which rows of the joint batch a process encodes, and how they travel.

    Attributes:
        take: N indices into the joint (world · N) batch: what this process
            encodes, in this order.
        leave: N rows of this process's own batch in the order in which they
            leave: by destination, then by position there.
        arrive: N positions of this process's new batch in the order in which
            they arrive: by origin, then by position.
        sent: Rows that go to each process.
        received: Rows that come from each process.
    """

    take: Tensor
    leave: Tensor
    arrive: Tensor
    sent: tuple[int, ...]
    received: tuple[int, ...]


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
    if world == 1:
        # No value decides a shape: the memory estimate's tensors have none.
        rows = send(dict(take=order, arrive=torch.arange(batch)), device)
        return ShufflePlan(
            **rows, leave=rows['take'], sent=(batch,), received=(batch,)
        )
    take = order[rank * batch : (rank + 1) * batch]
    origin = take // batch
    goes = (order // batch == rank).nonzero().squeeze(1)
    rows = send(
        dict(
            take=take,
            leave=order[goes] - rank * batch,
            arrive=origin.argsort(stable=True),
        ),
        device,
    )
    return ShufflePlan(
        **rows,
        sent=_counts(goes // batch, world),
        received=_counts(origin, world),
    )


def shuffle(x: Tensor, plan: ShufflePlan) -> Tensor:
    """Return the rows ``plan.take`` of the joint batch.

    The gradient, if there is one, returns to the owners of the rows.

    Args:
        x: N×…, this process's own rows.
        plan: The plan of the step.
    """
    arrived = all_to_all(x[plan.leave], plan.sent, plan.received)
    return arrived[plan.arrive.argsort()]


def unshuffle(encoded: Tensor, plan: ShufflePlan) -> Tensor:
    """Return this process's own rows of what all processes encoded.

    Args:
        encoded: N×C, the rows ``plan.take`` of the joint batch.
        plan: The plan that chose them.
    """
    returned = all_to_all(encoded[plan.arrive], plan.received, plan.sent)
    return returned[plan.leave.argsort()]


def _counts(processes: Tensor, world: int) -> tuple[int, ...]:
    return tuple(torch.bincount(processes, minlength=world).tolist())
