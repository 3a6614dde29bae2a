import math

import torch
import torch.nn.functional as F
from torch import Tensor


def grid_side(pos_embed: Tensor) -> int:
    """Return the side of the square grid that position embeddings cover.

    Args:
        pos_embed: 1×(1 + side²)×C, the class token first.

    Raises:
        ValueError: If they have another shape.
    """
    if pos_embed.dim() == 3 and len(pos_embed) == 1:
        side = math.isqrt(max(pos_embed.shape[1] - 1, 0))
        if side and side * side + 1 == pos_embed.shape[1]:
            return side
    raise ValueError(
        f'pos_embed has the shape {tuple(pos_embed.shape)}; expected '
        '1×(1 + side²)×C, one class token before a square grid of patches.'
    )


def resize_positions(pos_embed: Tensor, side: int) -> Tensor:
    """Interpolate position embeddings to another square grid, bicubically.

    As mmpretrain does when it loads weights; a grid of the same side comes
    back unchanged.

    Args:
        pos_embed: 1×(1 + s²)×C, the class token first.
        side: Side of the new grid, in patches.

    Returns:
        1×(1 + side²)×C.

    Raises:
        ValueError: If the given ones cover no square grid.
    """
    old = grid_side(pos_embed)
    if old == side:
        return pos_embed
    cls, patches = pos_embed[:, :1], pos_embed[:, 1:]
    grid = patches.transpose(1, 2).unflatten(2, (old, old))  # 1×C×s×s
    grid = F.interpolate(
        grid.float(), (side, side), mode='bicubic', align_corners=False
    )
    new = grid.flatten(2).transpose(1, 2).to(pos_embed.dtype)
    return torch.cat([cls, new], dim=1)


def are_fixed(pos_embed: Tensor) -> bool:
    """Tell whether positions are the fixed sines and cosines of MoCo v3.

    They are if the class token has zeros, and sine and cosine in the four
    quarters of the channels belong to the same angles.

    Args:
        pos_embed: 1×(1 + patches)×C, the class token first.
    """
    cls, patches = pos_embed[0, 0].float(), pos_embed[0, 1:].float()
    if len(cls) % 4 or cls.abs().max() > 1e-6:
        return False
    a, b, c, d = patches.chunk(4, dim=1)
    ones = torch.cat([a**2 + b**2, c**2 + d**2])
    return bool((ones - 1).abs().max() < 1e-4)
