from collections.abc import Sequence
from typing import Any

from mmengine.dataset import Compose

from mmmoco.registry import TRANSFORMS


def build_pipeline(configs: Sequence[dict[str, Any]]) -> Compose:
    """Build transforms in mmmoco's scope, whatever the default scope is."""
    return Compose([TRANSFORMS.build(config) for config in configs])
