from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mmmoco.functional import Neighbours, nearest, vote

from .classification import Metrics, classification_metrics, count_classes


class KNNResult(NamedTuple):
    """What a k-NN evaluation found.

    Attributes:
        metrics: ``top1`` and ``top5`` in percent.
        neighbours: N×k indices into the bank, nearest first.
        predictions: N class indices.
    """

    metrics: Metrics
    neighbours: Tensor
    predictions: Tensor


def knn_accuracy(
    bank: Tensor,
    bank_labels: Tensor,
    queries: Tensor,
    labels: Tensor,
    k: int = 20,
    temperature: float = 0.07,
) -> KNNResult:
    """Classify queries by their weighted nearest neighbours in the bank.

    Args:
        bank: M×C features with M ``bank_labels``.
        bank_labels: Class indices.
        queries: N×C features with N ``labels``.
        labels: Class indices.
        k: Neighbours that vote, at most M (published: 20 or 200).
        temperature: τ of the votes (published: 0.07 or 0.1).

    Raises:
        ValueError: If k exceeds the bank or the shapes do not fit.
    """
    if len(bank) != len(bank_labels):
        raise ValueError(
            f'{len(bank)} bank features but {len(bank_labels)} labels.'
        )
    found = nearest(bank, queries, k)
    classes = count_classes(bank_labels, labels)
    votes = vote(found, bank_labels, classes, temperature)
    return KNNResult(
        metrics=vote_metrics(votes, labels),
        neighbours=found.indices,
        predictions=votes.argmax(1),
    )


def knn_metrics(
    neighbours: Neighbours,
    bank_labels: Tensor,
    labels: Tensor,
    ks: Sequence[int],
    temperature: float = 0.07,
) -> dict[int, Metrics]:
    """Return the figures of several k from one search.

    Args:
        neighbours: Of the N queries, at least max(ks) each.
        bank_labels: M class indices, or M×L with 1 where a class is present.
        labels: Of the queries, likewise.
        ks: Numbers of neighbours that vote.
        temperature: τ of the votes.
    """
    classes = count_classes(bank_labels, labels)
    result = {}
    for k in ks:
        voters = Neighbours(*(part[:, :k] for part in neighbours))
        votes = vote(voters, bank_labels.clamp(min=0), classes, temperature)
        result[k] = vote_metrics(votes, labels)
    return result


def vote_metrics(votes: Tensor, labels: Tensor) -> Metrics:
    """Return the figures of votes; a class without a vote is no answer.

    Args:
        votes: N×L, 0 where no neighbour voted.
        labels: N class indices, or N×L with 1 where a class is present.
    """
    if labels.dim() == 1:
        votes = votes.masked_fill(votes == 0, -torch.inf)
    return classification_metrics(votes, labels)
