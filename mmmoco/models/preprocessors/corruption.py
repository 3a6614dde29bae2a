"""Block-wise corruption of image batches (GMML), on their device."""

from typing import NamedTuple

import torch
from torch import Tensor

from mmmoco.functional import check_range, check_within, generator_on, send
from mmmoco.registry import BATCH_AUGMENTS

MODES = ('either', 'both')
FILLS = ('noise', 'zeros')


class Corrupted(NamedTuple):
    """A batch and what was done to it.

    Attributes:
        images: N×C×H×W.
        mask: N×1×H×W, True where a pixel was replaced.
    """

    images: Tensor
    mask: Tensor


@BATCH_AUGMENTS.register_module()
class BlockCorruption:
    """Replace rectangles of normalised images, until a budget is met.

    Rectangles, their sides between ``align`` and ``max_side`` of the image,
    are placed until they cover the budget; they may overlap. What they cover
    becomes noise, or the same place of another image of the batch.

    The amounts are those of GMML. Its rectangles start inside the image and
    are cut at the far edges only; here they are cut at all four, so that
    every place is covered equally often.

    `GMML <https://arxiv.org/abs/2205.14986>`_.

    Args:
        noise: Lowest and highest fraction of the image that becomes noise;
            the budget is drawn between them.
        alien: Fraction that comes from another image.
        mode: ``'either'``: each image gets one of the two; ``'both'``: first
            the other image, then noise over it.
        alien_prob: Probability of the other image with ``'either'``.
        fill: ``'noise'``: N(0, 1); ``'zeros'``, as in SiT.
        align: Rectangles start and end at multiples of this; the patch size
            makes them cover whole patches.
        max_side: Longest side, as a fraction of the image's.
        max_blocks: Rectangles that are drawn at most for a budget.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        noise: tuple[float, float] = (0.5, 0.75),
        alien: float = 0.3,
        mode: str = 'either',
        alien_prob: float = 0.5,
        fill: str = 'noise',
        align: int = 1,
        max_side: float = 0.3,
        max_blocks: int = 256,
    ) -> None:
        if not 0.0 <= noise[0] <= noise[1] < 1.0 or not 0.0 <= alien < 1.0:
            raise ValueError(
                f'noise={tuple(noise)} and alien={alien} are fractions of an '
                'image, from 0 to below 1, low to high.'
            )
        if mode not in MODES or fill not in FILLS:
            raise ValueError(
                f'mode={mode!r}, fill={fill!r}: use one of {MODES} and one '
                f'of {FILLS}.'
            )
        check_within(alien_prob=alien_prob)
        check_range('max_side', (max_side, max_side), 1.0, positive=True)
        if align < 1 or max_blocks < 1:
            raise ValueError(
                f'align={align} and max_blocks={max_blocks} must be at '
                'least 1.'
            )
        self.noise, self.alien, self.mode = noise, alien, mode
        self.alien_prob, self.fill, self.align = alien_prob, fill, align
        self.max_side, self.max_blocks = max_side, max_blocks

    def __call__(self, x: Tensor, generator: torch.Generator) -> Corrupted:
        """Corrupt a batch.

        Args:
            x: N×C×H×W, normalised.
            generator: On the CPU, so that a seed places the same rectangles
                on every device. The noise in them is drawn where ``x`` lies:
                there a seed gives the same on devices of the same kind.

        Raises:
            ValueError: If ``align`` does not divide H and W.
        """
        n, _, height, width = x.shape
        if height % self.align or width % self.align:
            raise ValueError(
                f'align={self.align} does not divide the images of '
                f'{height}×{width} pixels.'
            )

        def uniform() -> Tensor:
            return torch.rand(n, generator=generator)

        low, high = self.noise
        budget = low + (high - low) * uniform()
        # A single image has no other one to borrow from.
        alien_prob = self.alien_prob if n > 1 else 0.0
        alien = torch.full_like(budget, self.alien if n > 1 else 0.0)
        if self.mode == 'both':
            noisy = self._blocks(budget, x, generator)
            borrowed = self._blocks(alien, x, generator)
            takes_alien = None
        else:
            takes_alien = uniform() < alien_prob
            budget = torch.where(takes_alien, alien, budget)
            noisy = borrowed = self._blocks(budget, x, generator)
        shift = (uniform() * (n - 1)).long().clamp(max=max(n - 2, 0)) + 1
        other = (torch.arange(n) + shift) % n
        ready = send(dict(other=other, takes_alien=takes_alien), x.device)
        if takes_alien is not None:
            borrowed = borrowed & ready['takes_alien'].view(n, 1, 1, 1)
            noisy = noisy & ~borrowed
        images = torch.where(borrowed, x[ready['other']], x)
        if self.fill == 'noise':
            draws = generator_on(x.device, generator)
            filling = x.new_empty(x.shape).normal_(generator=draws)
        else:
            filling = torch.zeros_like(x)
        return Corrupted(torch.where(noisy, filling, images), noisy | borrowed)

    def _blocks(
        self, budget: Tensor, x: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Return N×1×H×W: the first rectangles that cover the budget.

        The union of the first k rectangles is one matrix product of their
        rows and columns; it grows with k, so that bisection finds k for all
        images at once.
        """
        rows, columns = (side // self.align for side in x.shape[-2:])
        row = self._spans(len(budget), rows, generator)
        column = self._spans(len(budget), columns, generator)
        # A rounding error must not ask for one rectangle more.
        goal = budget * rows * columns - 1e-3
        ready = send(dict(row=row, column=column, goal=goal), x.device)
        in_rows = self._covered(ready['row'], rows)  # N×K×rows
        in_columns = self._covered(ready['column'], columns)
        goal = ready['goal']
        number = torch.arange(self.max_blocks, device=x.device)

        def union(count: Tensor) -> Tensor:
            used = (number < count[:, None]).float().unsqueeze(-1)  # N×K×1
            return (in_rows * used).transpose(1, 2) @ in_columns > 0

        too_few = torch.full_like(goal, -1, dtype=torch.long)
        enough = torch.full_like(too_few, self.max_blocks)
        for _ in range(self.max_blocks.bit_length() + 1):
            middle = (too_few + enough + 1) // 2
            reached = union(middle).sum((1, 2)) >= goal
            last = enough - too_few <= 1
            enough = torch.where(reached & ~last, middle, enough)
            too_few = torch.where(reached | last, too_few, middle)
        mask = union(enough).unsqueeze(1)
        if self.align > 1:
            mask = mask.repeat_interleave(self.align, 2)
            mask = mask.repeat_interleave(self.align, 3)
        return mask

    def _spans(self, n: int, cells: int, generator: torch.Generator) -> Tensor:
        """Draw intervals on one side of the image: first and end, 2×N×K×1."""
        longest = max(1, int(self.max_side * cells))
        shape = (n, self.max_blocks, 1)

        def draw() -> Tensor:
            return torch.rand(shape, generator=generator)

        length = (draw() * longest).floor() + 1
        # From just touching the near edge to just touching the far one.
        start = (draw() * (cells + length - 1)).floor() - (length - 1)
        return torch.stack([start, start + length])

    @staticmethod
    def _covered(spans: Tensor, cells: int) -> Tensor:
        """Return which cells the intervals cover: N×K×cells, 0 or 1."""
        start, end = spans
        cell = torch.arange(cells, device=spans.device)
        return ((cell >= start) & (cell < end)).float()
