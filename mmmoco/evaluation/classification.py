"""Figures of classifiers, from scores and labels."""

import torch
from sklearn.metrics import average_precision_score
from torch import Tensor

Metrics = dict[str, float]

#: Behind every place.
NOWHERE = 2**31


def count_classes(*labels: Tensor) -> int:
    """Return the number of classes in labels, N or N×L."""
    if labels[0].dim() == 2:
        return labels[0].shape[1]
    return int(max(part.max() for part in labels)) + 1


def classification_metrics(scores: Tensor, labels: Tensor) -> Metrics:
    """Return what the labels allow to say about scores, in percent.

    Args:
        scores: N×L.
        labels: N class indices: ``top1`` and ``top5``. Or N×L with 1 where a
            class is present, 0 where not and −1 where it does not count
            (difficult): ``mAP`` (mean over the classes, as VOC) and
            ``micro_mAP`` (all decisions in one list, as BigEarthNet).
    """
    if labels.dim() == 2:
        return _average_precision(scores, labels)
    rank = rank_of(scores, labels)
    return {
        'top1': 100.0 * (rank < 1).float().mean().item(),
        'top5': 100.0 * (rank < 5).float().mean().item(),
    }


def rank_of(scores: Tensor, labels: Tensor, rows: int = 4096) -> Tensor:
    """Return the place of the right class among the scores, from 0.

    Of equal scores the class with the lower number comes first. A class
    whose score is −inf, or no number, is no answer: its place is NOWHERE.

    Args:
        scores: N×L.
        labels: N class indices.
        rows: Queries that are compared at once.
    """
    numbers = torch.arange(scores.shape[1], device=scores.device)
    parts = []
    pairs = zip(scores.split(rows), labels.split(rows), strict=True)
    for some, asked in pairs:
        right = asked.to(scores.device)[:, None]
        own = some.gather(1, right)
        # Not "some > own": what is no number counts against the model.
        before = ~(some <= own) | ((some == own) & (numbers < right))
        placed = own[:, 0] > -torch.inf
        parts.append(torch.where(placed, before.sum(1), NOWHERE))
    return torch.cat(parts)


def main_metric(metrics: Metrics) -> str:
    """Return the name of the figure that models are chosen by."""
    return next(iter(metrics))


def _average_precision(scores: Tensor, labels: Tensor) -> Metrics:
    scores, labels = scores.float().cpu(), labels.cpu()
    counts = labels >= 0
    per_class = [
        average_precision_score(labels[kept, i] == 1, scores[kept, i])
        for i, kept in enumerate(counts.T)
        if bool((labels[kept, i] == 1).any())
    ]
    if not per_class:
        raise ValueError('No class is present in any of the labels.')
    micro = average_precision_score(labels[counts] == 1, scores[counts])
    return {
        'mAP': 100.0 * sum(per_class) / len(per_class),
        'micro_mAP': 100.0 * float(micro),
    }
