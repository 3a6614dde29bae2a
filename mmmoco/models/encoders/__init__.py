from .key_encoder import KeyEncoder, ema_
from .momentum import check_momentum, momentum_at

__all__ = ['KeyEncoder', 'check_momentum', 'ema_', 'momentum_at']
