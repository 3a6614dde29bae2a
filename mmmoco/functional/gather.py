"""Gathering tensors of equal shape from all processes, in rank order."""

import torch
import torch.distributed as torch_dist
from mmengine.dist import get_world_size
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


def gather_with_grad(x: Tensor) -> Tensor:
    """As :func:`gather`, and the gradient flows back to the owner of a row.

    Each process holds the gradient of its own loss towards every key; what
    arrives at the owner of a key is the sum over all processes.
    """
    if get_world_size() == 1:
        return x
    from torch.distributed.nn.functional import all_gather

    return torch.cat(all_gather(x))
