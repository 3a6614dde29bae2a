"""Rows of all processes; what torch.distributed.nn does is deprecated."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as torch_dist
from mmengine.dist import get_rank, get_world_size
from torch import Tensor


@torch.no_grad()
def gather(x: Tensor) -> Tensor:
    """Concatenate ``x`` of all processes along dimension 0, rank 0 first.

    Args:
        x: N×… on every process, the same N everywhere.

    Returns:
        (world · N)×…, without gradient; ``x`` itself on a single process.
    """
    world = get_world_size()
    if world == 1:
        return x.detach()
    x = x.detach().contiguous()
    parts = [torch.empty_like(x) for _ in range(world)]
    torch_dist.all_gather(parts, x)
    return torch.cat(parts)


class _GatherWithGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.size = len(x)
        return gather(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].contiguous()
        torch_dist.all_reduce(grad)
        return grad[get_rank() * ctx.size :][: ctx.size]


def gather_with_grad(x: Tensor) -> Tensor:
    """As :func:`gather`, and the gradient flows back to the owner of a row.

    Each process holds the gradient of its own loss towards every key; what
    arrives at the owner of a key is the sum over all processes.
    """
    if get_world_size() == 1:
        return x
    gathered: Tensor = _GatherWithGrad.apply(x)
    return gathered


class _AllToAll(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, sent: Sequence[int], received: Sequence[int]
    ) -> Tensor:
        ctx.sent, ctx.received = sent, received
        result = x.new_empty(sum(received), *x.shape[1:])
        torch_dist.all_to_all_single(
            result, x.contiguous(), list(received), list(sent)
        )
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        # The rows travel the same way back.
        return _AllToAll.apply(grads[0], ctx.received, ctx.sent), None, None


def all_to_all(
    x: Tensor, sent: Sequence[int], received: Sequence[int]
) -> Tensor:
    """Send rows of ``x`` to every process; a gradient travels back.

    Args:
        x: N×…, ordered by destination.
        sent: Rows that go to each process.
        received: Rows that come from each process.
    """
    if len(sent) == 1:
        return x
    arrived: Tensor = _AllToAll.apply(x, sent, received)
    return arrived
