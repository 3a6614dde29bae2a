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


@dataclass(frozen=True)
class Stats:
    """What the look-up tells beside its loss; detached scalars.

    Attributes:
        positive_similarity: Mean cosine similarity to the positive.
        negative_similarity: Mean cosine similarity to the negatives.
        top1: Fraction of queries whose positive is the most similar key.
    """

    positive_similarity: Tensor
    negative_similarity: Tensor
    top1: Tensor


def info_nce(
    q: Tensor, candidates: Candidates, temperature: float
) -> tuple[Tensor, Stats]:
    """Score a look-up: cross-entropy of the positive among all candidates.

    Computed in float32 whatever the precision of the encoders.

    Args:
        q: N×C queries, L2-normalised.
        candidates: The keys of the look-up.
        temperature: τ, divides the similarities.

    Returns:
        The mean loss over the N queries, and the statistics of the look-up.

    Raises:
        ValueError: If the feature widths differ.
    """
    if q.shape[1] != candidates.keys.shape[0]:
        raise ValueError(
            f'The queries have {q.shape[1]} features, the dictionary '
            f"{candidates.keys.shape[0]}: set the dictionary's feat_dim to "
            'the output width of the neck.'
        )
    with torch.autocast(q.device.type, enabled=False):
        q = q.float()
        similarity = q @ candidates.keys.float()  # N×K
        if candidates.mask is not None:
            similarity = similarity.masked_fill(candidates.mask, float('-inf'))
        if candidates.positives is not None:
            positive = (q * candidates.positives.float()).sum(1)  # N
            logits = torch.cat([positive[:, None], similarity], dim=1)
            target = torch.zeros_like(positive, dtype=torch.long)
        else:
            assert candidates.positive_index is not None
            logits, target = similarity, candidates.positive_index
        loss = F.cross_entropy(logits / temperature, target)
    return loss, _stats(logits.detach(), target)


@torch.no_grad()
def _stats(similarity: Tensor, target: Tensor) -> Stats:
    positive = similarity.gather(1, target[:, None]).squeeze(1)
    allowed = torch.isfinite(similarity)
    total = torch.where(allowed, similarity, 0.0).sum() - positive.sum()
    count = (allowed.sum() - len(target)).clamp(min=1)
    # A tie, as in a collapsed network, does not count as found.
    rivals = (similarity >= positive[:, None]).sum(1)
    return Stats(
        positive_similarity=positive.mean(),
        negative_similarity=total / count,
        top1=(rivals == 1).float().mean(),
    )
