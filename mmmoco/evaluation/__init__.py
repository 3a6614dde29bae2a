from .classification import Metrics, classification_metrics, main_metric
from .knn import knn_accuracy, knn_metrics
from .linear_probe import ProbeResult, ProbeSettings, linear_probe, train_heads
from .micro_average_precision import MicroAveragePrecision
from .similarity import PairSimilarities, patch_objects
from .svm import SVMResult, svm_map
from .zero_shot import (
    central_point,
    random_points,
    score_objects,
    similarity_maps,
    summarise,
)

__all__ = [
    'Metrics',
    'MicroAveragePrecision',
    'PairSimilarities',
    'ProbeResult',
    'ProbeSettings',
    'SVMResult',
    'central_point',
    'classification_metrics',
    'knn_accuracy',
    'knn_metrics',
    'linear_probe',
    'main_metric',
    'patch_objects',
    'random_points',
    'score_objects',
    'similarity_maps',
    'summarise',
    'svm_map',
    'train_heads',
]
