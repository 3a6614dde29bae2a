from .classification import Metrics, classification_metrics, main_metric
from .knn import knn_accuracy, knn_metrics
from .linear_probe import ProbeResult, ProbeSettings, linear_probe, train_heads
from .lvis import LVISAveragePrecision
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
