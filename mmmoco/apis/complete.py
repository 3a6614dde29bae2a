"""Whether weights fill a network: no key missing, none too many."""

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.config import Config
from torch import Tensor

from mmmoco.engine import checkpoint_io

from .model import build_without_memory


def check_complete(
    weights: Mapping[str, Tensor],
    model: Mapping[str, Any],
    scope: str = 'mmmoco',
    allow_missing: Iterable[str] = (),
) -> None:
    """Check that weights fit a network exactly, without its memory.

    Args:
        weights: Tensors by name.
        model: Config of the network, a whole model or a backbone.
        scope: Where types without a scope are looked up.
        allow_missing: Shell patterns of keys that the weights may lack.

    Raises:
        CheckpointError: Keys are missing, unknown or of another shape; lists
            all of them.
    """
    cfg = Config(dict(model=dict(model), default_scope=scope))
    module = build_without_memory(cfg)
    with warnings.catch_warnings():
        # Only shapes are compared: on the meta device nothing is copied.
        warnings.filterwarnings('ignore', message='.*meta.*no-op')
        checkpoint_io.load_into(module, weights, allow_missing=allow_missing)
