"""InfoNCE, the dictionary look-up as a classification (MoCo v1, eq. 1)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .chunked_look_up import LookUp


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


def info_nce(
    q: Tensor, candidates: Candidates, temperature: float
) -> tuple[Tensor, Stats]:
    """Score a look-up: cross-entropy of the positive among all candidates.

    As :func:`plain_info_nce`, but never holds the N×K similarities together.
    Under bfloat16 autocast the factors of the two large products (queries
    with keys, weights with keys) and what the first returns, the similarities
    to the keys, are rounded to bfloat16; everything else, and all of it
    otherwise, is float32. For ``top1`` the positive is rounded in the same
    way. Gradients flow to the queries, and to positives and keys where these
    require them.

    Args:
        q: N×C queries, L2-normalised.
        candidates: The keys of the look-up.
        temperature: τ, divides the similarities.

    Returns:
        The mean loss over the N queries, and the statistics of the look-up.

    Raises:
        ValueError: If the feature widths differ.
    """
    keys = candidates.keys
    if q.shape[1] != keys.shape[0]:
        raise ValueError(
            f'The queries have {q.shape[1]} features, the dictionary '
            f"{keys.shape[0]}: set the dictionary's feat_dim to "
            'the output width of the neck.'
        )
    device = q.device.type
    in_bfloat16 = (
        torch.is_autocast_enabled(device)
        and torch.get_autocast_dtype(device) == torch.bfloat16
    )
    with torch.autocast(device, enabled=False):
        loss, *stats = LookUp.apply(
            q.float(),
            candidates.positive_keys.float(),
            keys,
            candidates.positive_index,
            candidates.mask,
            temperature,
            torch.bfloat16 if in_bfloat16 else torch.float32,
        )
    return loss, Stats(*stats)
