from .classification import Metrics, classification_metrics, main_metric
from .knn import knn_accuracy, knn_metrics
from .linear_probe import ProbeResult, ProbeSettings, linear_probe, train_heads
from .micro_average_precision import MicroAveragePrecision
from .svm import SVMResult, svm_map

__all__ = [
    'Metrics',
    'MicroAveragePrecision',
    'ProbeResult',
    'ProbeSettings',
    'SVMResult',
    'classification_metrics',
    'knn_accuracy',
    'knn_metrics',
    'linear_probe',
    'main_metric',
    'svm_map',
    'train_heads',
]
