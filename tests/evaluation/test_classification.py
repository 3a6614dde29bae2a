import pytest
import torch
from mmengine.structures import BaseDataElement
from sklearn.metrics import average_precision_score

from mmmoco.evaluation.classification import classification_metrics


def test_average_precisions_of_a_table():
    draws = torch.Generator().manual_seed(0)
    scores = torch.rand(40, 5, generator=draws)
    labels = (torch.rand(40, 5, generator=draws) < 0.3).long()
    metrics = classification_metrics(scores, labels)
    macro = average_precision_score(labels, scores, average='macro')
    micro = average_precision_score(labels, scores, average='micro')
    assert metrics['mAP'] == pytest.approx(100 * macro)
    assert metrics['micro_mAP'] == pytest.approx(100 * micro)


def test_difficult_objects_do_not_count():
    labels = torch.tensor([[1], [0], [-1]])
    scores = torch.tensor([[0.5], [0.1], [0.9]])
    assert classification_metrics(scores, labels)['mAP'] == 100.0
    counted = classification_metrics(scores, labels.clamp(min=0))
    assert counted['mAP'] == pytest.approx(50.0)


def test_metric_of_mmpretrain_classifiers():
    import mmpretrain.structures
    from mmengine.evaluator import Evaluator

    import mmmoco.evaluation  # noqa: F401
    from mmmoco.registry import METRICS

    draws = torch.Generator().manual_seed(0)
    scores = torch.rand(20, 3, generator=draws)
    classes = [[i % 3] if i % 2 else [0, 2] for i in range(20)]
    evaluator = Evaluator(METRICS.build(dict(type='MicroAveragePrecision')))
    samples: list[BaseDataElement] = []
    for score, present in zip(scores, classes):
        sample = mmpretrain.structures.DataSample()
        samples.append(sample.set_pred_score(score).set_gt_label(present))
    evaluator.process(data_samples=samples)
    found = evaluator.evaluate(20)
    table = torch.zeros(20, 3)
    for row, present in enumerate(classes):
        table[row, present] = 1
    expected = average_precision_score(table, scores, average='micro')
    assert found['multi-label/micro_mAP'] == pytest.approx(100 * expected)
