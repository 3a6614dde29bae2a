"""Figures of features and scores: arrays in, numbers out."""

from .micro_average_precision import MicroAveragePrecision

__all__ = ['MicroAveragePrecision']
