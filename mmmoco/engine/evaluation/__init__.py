"""Evaluations of frozen features: each a file, behind one interface."""

from .agreement import NeighbourAgreement
from .building import build_evaluation
from .evaluation import Evaluation, Measurement
from .features import Features, extract_features
from .knn import KNN
from .linear_probe import LinearProbe
from .splits import Splits
from .svm import SVM
