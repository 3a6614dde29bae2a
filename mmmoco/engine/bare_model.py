from typing import Any

from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmmoco.two_phase import TwoPhaseModel


def bare_model(runner: Runner) -> Any:
    """Return the runner's model without its wrapper (DDP and others)."""
    model = runner.model
    return model.module if is_model_wrapper(model) else model


def two_phase_model(runner: Runner) -> TwoPhaseModel | None:
    """Return the runner's bare model; None for one of another library."""
    model = bare_model(runner)
    return model if isinstance(model, TwoPhaseModel) else None
