"""Gathering tensors of equal shape from all processes, in rank order."""

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
        ctx.size = x.shape[0]
        return gather(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        # Each process holds the gradient of its own loss towards every key;
        # the owner of a key needs the sum.
        grad = grads[0].contiguous()
        torch_dist.all_reduce(grad)
        start = get_rank() * ctx.size
        return grad[start : start + ctx.size]


def gather_with_grad(x: Tensor) -> Tensor:
    """As :func:`gather`, and the gradient flows back to the owner of a row.

    The gradient that arrives is the sum over the losses of all processes.
    """
    if get_world_size() == 1:
        return x
    result: Tensor = _GatherWithGrad.apply(x)
    return result
