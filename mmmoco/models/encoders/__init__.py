from .fitting import (
    build_neck,
    check_channels,
    check_width,
    fit_heads,
    image_channels,
    shapes_of,
    size_of,
)
from .key_encoder import KeyEncoder, ema_
from .momentum import check_momentum, momentum_at
