import torch
from mmengine.dist import get_rank, get_world_size
from torch import Tensor

from mmmoco.functional import Mixing, generator
from mmmoco.messages import log_info, log_warning
from mmmoco.registry import MODELS


@MODELS.register_module()
class HardNegatives:
    """Synthetic negatives for each query (MoCHi, arXiv 2010.01028).

    Of the negatives that are most similar to a query, pairs are mixed by
    shares from (0, 1), and some are mixed with the query itself, whose share
    is below a half. The mixtures are normalised and carry no gradient; they
    are further negatives of this query alone, and never stored.

    Args:
        n: The hardest negatives, N in the paper, to mix from.
        s: Mixtures of two.
        s2: Mixtures of one with the query, s′ in the paper.
        start_epoch: Epochs to train without, until the hardest mean
            something.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        n: int = 1024,
        s: int = 1024,
        s2: int = 128,
        start_epoch: int = 10,
    ) -> None:
        if n < 1 or min(s, s2, start_epoch) < 0 or s + s2 == 0:
            raise ValueError(
                f'HardNegatives(n={n}, s={s}, s2={s2}, start_epoch='
                f'{start_epoch}): n has to be positive, the others 0 or more, '
                'and s or s2 more than 0.'
            )
        self.n, self.s, self.s2 = n, s, s2
        self.start_epoch = start_epoch
        self._on: bool | None = None
        self._told_of_few = False
        self._address, self._look_ups = (0, 0), 0

    def set_address(self, seed: int, step: int, epoch: int | None) -> None:
        """Say which iteration comes next, and whether it has mixtures.

        Args:
            seed: Of the run.
            step: Iteration (micro-batch).
            epoch: That it belongs to; None: unknown.
        """
        self._address, self._look_ups = (seed, step), 0
        on = epoch is None or epoch >= self.start_epoch
        if on and not self._on:
            where = '' if epoch is None else f' (epoch {epoch + 1})'
            log_info(
                f'Hard negatives: from iteration {step + 1}{where} on, '
                f'{self.s} mixtures of two and {self.s2} with the query, of '
                f'the {self.n} hardest keys.'
            )
        elif self._on is None:
            log_info(
                f'Hard negatives: none in the first {self.start_epoch} epochs.'
            )
        self._on = on

    def mixing(self, queries: int, keys: Tensor) -> Mixing | None:
        """Return what the next look-up mixes, None if it is too early.

        Each process draws for the queries of all, and takes its own part.

        Args:
            queries: Of this process.
            keys: C×K.
        """
        if self.n > keys.shape[1] and not self._told_of_few:
            self._told_of_few = True
            log_warning(
                f'HardNegatives(n={self.n}), but there are only '
                f'{keys.shape[1]} keys: all of them count as hard. Lower '
                'model.loss.hard_negatives.n, or raise dictionary.size.'
            )
        if self._on is False:
            return None
        address = (*self._address, 'hard negatives', self._look_ups)
        self._look_ups += 1
        draws = torch.rand(
            get_world_size() * queries,
            Mixing.numbers(self.s, self.s2),
            generator=generator(*address, device=keys.device),
            device=keys.device,
        )
        own = draws[get_rank() * queries :][:queries]
        return Mixing(self.n, self.s, self.s2, own)

    def __repr__(self) -> str:
        return (
            f'HardNegatives(n={self.n}, s={self.s}, s2={self.s2}, '
            f'start_epoch={self.start_epoch})'
        )
