from .info_nce import InfoNCE

__all__ = ['InfoNCE']
