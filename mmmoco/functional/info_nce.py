"""InfoNCE, the dictionary look-up as a classification (MoCo v1, eq. 1)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Candidates:
    """What a query is compared with.

    Attributes:
        keys: C×K, L2-normalised columns. All of them are negatives, except
            the ones that ``positive_index`` names.
        positives: N×C, the positive key of each query, standing beside
            ``keys``; None if the positives are among ``keys``.
        positive_index: N indices into the K columns; None if ``positives``
            is given.
        mask: N×K, True where a key must not be a negative of a query.
    """

    keys: Tensor
    positives: Tensor | None = None
    positive_index: Tensor | None = None
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.positives is None) == (self.positive_index is None):
            raise ValueError(
                'Candidates needs either positives or positive_index, not '
                'both and not neither.'
            )

    @property
    def positive_keys(self) -> Tensor:
        """The positive key of each query, N×C, wherever it stands."""
        if self.positives is not None:
            return self.positives
        return self.keys[:, self.positive_index].T

    def excluded(self) -> dict[str, Tensor]:
        """How many negatives are masked, and how many queries have none.

        Returns:
            Shares, of the negatives and of the queries; {} without a mask.
        """
        if self.mask is None:
            return {}
        n, keys = self.mask.shape
        negatives, gone = n * keys, self.mask
        if self.positive_index is not None:
            negatives -= n
            gone = gone.scatter(1, self.positive_index[:, None], True)
        # Not sums of the mask: on a CPU they take 5 to 20 times as long.
        return {
            'excluded': self.mask.count_nonzero() / max(1, negatives),
            'no_negatives': gone.all(1).float().mean(),
        }


def same(numbers: Tensor, others: Tensor) -> Tensor:
    """Return where two numbers are equal, N×K; −1 equals nothing."""
    # One comparison: in many pairs a second pass would cost as much again.
    known = torch.where(numbers < 0, -2, numbers)
    return known[:, None] == others


@dataclass(frozen=True)
class Stats:
    """What the look-up tells beside its loss; detached scalars.

    Attributes:
        positive_similarity: Mean cosine similarity to the positive.
        negative_similarity: Mean cosine similarity to the negatives.
        top1: Fraction of queries whose positive is the most similar key.
        hard_similarity: Mean cosine similarity to the synthetic keys, which
            count for none of the others; None if there are none.
    """

    positive_similarity: Tensor
    negative_similarity: Tensor
    top1: Tensor
    hard_similarity: Tensor | None = None


def plain_info_nce(
    q: Tensor, candidates: Candidates, temperature: float
) -> tuple[Tensor, Stats]:
    """Score a look-up as the paper writes it; the reference of the tests.

    Args:
        q: N×C queries, L2-normalised.
        candidates: The keys of the look-up.
        temperature: τ, divides the similarities.

    Returns:
        The mean loss over the N queries, and the statistics of the look-up.
    """
    positive = (q * candidates.positive_keys).sum(1)  # N
    negative = q @ candidates.keys  # N×K
    if candidates.mask is not None:
        negative = negative.masked_fill(candidates.mask, -torch.inf)
    if candidates.positive_index is not None:
        own = candidates.positive_index[:, None]
        negative = negative.scatter(1, own, -torch.inf)
    logits = torch.cat([positive[:, None], negative], 1) / temperature
    first = torch.zeros(len(q), dtype=torch.long, device=q.device)
    return F.cross_entropy(logits, first), Stats(
        positive_similarity=positive.detach().mean(),
        negative_similarity=negative[~negative.isneginf()].detach().mean(),
        top1=(negative.amax(1) < positive).float().mean(),
    )
