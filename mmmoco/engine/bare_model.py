from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner


def bare_model(runner: Runner) -> Any:
    """Return the runner's model without its wrapper (DDP and others)."""
    model = runner.model
    return model.module if is_model_wrapper(model) else model
