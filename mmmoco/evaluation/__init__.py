from .knn import knn_accuracy
from .similarity import PairSimilarities, pair_similarities, patch_objects
from .zero_shot import (
    central_point,
    random_points,
    score_objects,
    similarity_maps,
    summarise,
)

__all__ = [
    'PairSimilarities',
    'central_point',
    'knn_accuracy',
    'pair_similarities',
    'patch_objects',
    'random_points',
    'score_objects',
    'similarity_maps',
    'summarise',
]
