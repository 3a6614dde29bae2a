from .key_encoder import KeyEncoder

__all__ = ['KeyEncoder']
