from .base import Dictionary
from .queue import Queue

__all__ = ['Dictionary', 'Queue']
