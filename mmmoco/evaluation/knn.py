from typing import NamedTuple

from torch import Tensor

from mmmoco.functional import weighted_knn


class KNNResult(NamedTuple):
    """What a k-NN evaluation found.

    Attributes:
        metrics: ``top1`` and ``top5`` in percent.
        neighbours: N×k indices into the bank, nearest first.
        predictions: N class indices.
    """

    metrics: dict[str, float]
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
    """
    classes = int(max(bank_labels.max(), labels.max())) + 1
    votes, neighbours = weighted_knn(
        bank, bank_labels, queries, classes, k, temperature
    )
    ranked = votes.topk(min(5, classes), dim=1).indices
    hits = ranked == labels[:, None]
    return KNNResult(
        metrics={
            'top1': 100.0 * hits[:, 0].float().mean().item(),
            'top5': 100.0 * hits.any(1).float().mean().item(),
        },
        neighbours=neighbours,
        predictions=ranked[:, 0],
    )
