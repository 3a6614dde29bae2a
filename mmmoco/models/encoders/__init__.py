from .key_encoder import KeyEncoder, check_momentum, ema_, momentum_at

__all__ = ['KeyEncoder', 'check_momentum', 'ema_', 'momentum_at']
