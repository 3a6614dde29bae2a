"""Weighted k-nearest-neighbour classification of features."""

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def weighted_knn(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
    chunk: int = 1024,
) -> tuple[Tensor, Tensor]:
    """Vote with the k nearest features (Wu et al. 2018; DINO protocol).

    Each neighbour votes for its class with weight exp(similarity / τ). The
    features are L2-normalised here, and similarities are float32.

    Args:
        bank: M×C labelled features.
        bank_labels: M class indices.
        queries: N×C features to classify.
        num_classes: Number of classes.
        k: Neighbours that vote; at most M.
        temperature: τ of the votes.
        chunk: Queries compared at once; memory grows as ``chunk`` · M.

    Returns:
        N×num_classes votes, and N×k indices of the neighbours, nearest
        first.

    Raises:
        ValueError: If k exceeds the bank or the shapes do not fit.
    """
    if len(bank) != len(bank_labels):
        raise ValueError(
            f'{len(bank)} bank features but {len(bank_labels)} labels.'
        )
    if not 1 <= k <= len(bank):
        raise ValueError(
            f'k={k} neighbours of a bank of {len(bank)} features; choose k '
            f'between 1 and {len(bank)}.'
        )
    bank = F.normalize(bank.float(), dim=1)
    queries = F.normalize(queries.float(), dim=1)
    votes, indices = [], []
    for part in queries.split(chunk):
        similarity, nearest = (part @ bank.T).topk(k, dim=1)
        # Constant per query, so the ranking stays; no overflow at small τ.
        weight = ((similarity - similarity[:, :1]) / temperature).exp()
        vote = part.new_zeros(len(part), num_classes)
        votes.append(vote.scatter_add_(1, bank_labels[nearest], weight))
        indices.append(nearest)
    return torch.cat(votes), torch.cat(indices)
