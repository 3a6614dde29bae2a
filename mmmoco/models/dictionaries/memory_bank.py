import torch
import torch.nn.functional as F
from torch import Tensor

from mmmoco.functional import Candidates, generator, same
from mmmoco.registry import MODELS
from mmmoco.two_phase import Dictionary


@MODELS.register_module()
class MemoryBank(Dictionary):
    """One feature for every training image (MoCo v1, figure 2b).

    The positive of a query is the entry of its own image, the negatives are
    entries drawn at random, with replacement and the same for all queries of
    a step; draws of the own image do not count. After the step the query
    moves its entry by a momentum of its own. There is no key encoder, and
    only ``view_q`` is encoded. The mechanism is that of `instance
    discrimination <https://arxiv.org/abs/1805.01978>`_.

    Args:
        size: Number of training images; sample ids count from 0 to size − 1.
        feat_dim: Width of an entry, C.
        num_negatives: Negatives of a step, K in the paper.
        momentum: Weight of the old entry.
        exclude: ``'group'``: draws of the query's group do not count either,
            as far as the bank has met them; others are still random.
            ``'image'``, or None: only those of the own image do not.
    """

    needs_keys = False

    features: Tensor
    groups: Tensor

    def __init__(
        self,
        size: int,
        feat_dim: int,
        num_negatives: int,
        momentum: float = 0.5,
        exclude: str | None = None,
    ) -> None:
        super().__init__(exclude)
        if size < 2 or feat_dim < 1:
            raise ValueError(
                f'MemoryBank(size={size}, feat_dim={feat_dim}): needs at '
                'least 2 images and 1 feature.'
            )
        if not 1 <= num_negatives <= size:
            raise ValueError(
                f'MemoryBank(num_negatives={num_negatives}) must lie within '
                f'1 and size={size}.'
            )
        if not 0.0 <= momentum < 1.0:
            raise ValueError(
                f'MemoryBank(momentum={momentum}) must lie within [0, 1): it '
                'is the weight of the old entry.'
            )
        self.size, self.num_negatives = size, num_negatives
        self.momentum = momentum
        self._num_samples = 0
        self.register_buffer(
            'features', F.normalize(torch.randn(size, feat_dim), dim=1)
        )
        if exclude == 'group':
            self.register_buffer('groups', torch.full((size,), -1))

    def lookup(
        self, k: Tensor, ids: Tensor, groups: Tensor | None = None
    ) -> Candidates:
        """Positive and negatives are entries; ``k`` is not looked at."""
        self._check_ids(ids)
        draws = generator(*self.address, 'negatives')
        drawn = torch.randint(
            self.size, (self.num_negatives,), generator=draws
        ).to(ids.device)
        mask = same(ids, drawn)
        if self.exclude == 'group':
            mask |= same(self.marks(ids, groups), self.groups[drawn])
        return Candidates(
            keys=self.features[drawn].T,
            positives=self.features[ids],
            mask=mask,
        )

    def candidates(self, images: int) -> int:
        """The drawn entries, and the query's own."""
        return self.num_negatives + 1

    def write(
        self, k: Tensor, ids: Tensor, groups: Tensor | None = None
    ) -> None:
        """Move the entries towards the queries, back onto the sphere.

        Of an image that occurs twice in one step the last query counts, so
        that the banks of all processes stay identical.
        """
        order = torch.arange(len(ids), device=ids.device)
        same = ids[:, None] == ids[None]
        last = torch.where(same, order, -1).amax(1)
        new = torch.lerp(k[last], self.features[ids], self.momentum)
        # Rows that occur twice receive the same values twice.
        self.features[ids] = F.normalize(new, dim=1)
        if self.exclude == 'group':
            self.groups[ids] = self.marks(ids, groups)

    def check(self, effective_batch: int, num_samples: int) -> str | None:
        """Hold the size against the data set.

        Raises:
            ValueError: If the data set has more images than the bank.
        """
        self._num_samples = num_samples
        if num_samples > self.size:
            raise ValueError(
                f'The memory bank has {self.size} entries, one for each '
                f'training image, but the data set has {num_samples} images: '
                f'set dictionary.size={num_samples}.'
            )
        if 0 < num_samples < self.size:
            return (
                f'The memory bank has {self.size} entries but the data set '
                f'only {num_samples} images: {self.size - num_samples} '
                'entries stay random and are drawn as negatives. Set '
                f'dictionary.size={num_samples}.'
            )
        return None

    def _check_ids(self, ids: Tensor) -> None:
        low, high = torch.stack(ids.aminmax()).tolist()
        if low >= 0 and high < self.size:
            return
        length = self._num_samples or 'of unknown length'
        raise ValueError(
            f'The memory bank has size={self.size} entries for the sample '
            f'ids 0 … {self.size - 1}, but the batch holds ids from {low} to '
            f'{high} (data set: {length}). It needs a data set that numbers '
            'its samples, and dictionary.size equal to its length.'
        )

    def extra_repr(self) -> str:
        """Shown when the model is printed."""
        return (
            f'size={self.size}, num_negatives={self.num_negatives}, '
            f'momentum={self.momentum}'
        )
