from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric

from mmmoco.registry import METRICS

from .classification import Metrics, classification_metrics


@METRICS.register_module()
class MicroAveragePrecision(BaseMetric):
    """Micro and macro mAP of mmpretrain's multi-label classifiers.

    mmpretrain has the macro average only; BigEarthNet is reported with all
    decisions in one list. Percent, ``mAP`` and ``micro_mAP``.
    """

    default_prefix = 'multi-label'

    def process(
        self, data_batch: Any, data_samples: Sequence[dict[str, Any]]
    ) -> None:
        """Keep scores and classes of a batch."""
        for sample in data_samples:
            score = sample['pred_score'].cpu()
            target = torch.zeros(len(score), dtype=torch.long)
            target[sample['gt_label'].cpu()] = 1
            self.results.append((score, target))

    def compute_metrics(self, results: list[Any]) -> Metrics:
        """Return both averages."""
        scores, targets = (torch.stack(x) for x in zip(*results, strict=True))
        return classification_metrics(scores, targets)
