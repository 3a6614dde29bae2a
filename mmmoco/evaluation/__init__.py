from .knn import knn_accuracy

__all__ = ['knn_accuracy']
