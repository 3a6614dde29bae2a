"""From the host to the device that trains, without waiting for it."""

from collections.abc import Hashable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

Key = TypeVar('Key', bound=Hashable)


def send(
    values: Mapping[Key, Any], device: torch.device | str
) -> dict[Key, Any]:
    """Copy many small tensors to a device, all of them in one copy.

    On a GPU the copy is made from pinned memory: the host goes on at once.

    Args:
        values: Tensors of the host, by name; what is no tensor passes.
        device: Where they are needed.

    Returns:
        The same names; the tensors share one block of memory.
    """
    device = torch.device(device)
    tensors = {n: x for n, x in values.items() if isinstance(x, Tensor)}
    if device.type == 'cpu' or not tensors:
        return dict(values)
    # The widest first: each then begins at a multiple of its own width.
    names = sorted(tensors, key=lambda n: -tensors[n].element_size())
    block = torch.cat(
        [tensors[n].reshape(-1).contiguous().view(torch.uint8) for n in names]
    )
    if device.type == 'cuda':
        block = block.pin_memory()
    block = block.to(device, non_blocking=True)
    result = dict(values)
    sizes = [tensors[n].nbytes for n in names]
    for name, part in zip(names, block.split(sizes), strict=True):
        x = tensors[name]
        result[name] = part.view(x.dtype).view(x.shape)
    return result
