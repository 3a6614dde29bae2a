"""The linear probe as an evaluation."""

import time
from dataclasses import dataclass
from typing import Any

from mmengine.device import get_device

from mmmoco.evaluation.linear_probe import ProbeSettings, linear_probe
from mmmoco.registry import EVALUATIONS

from .evaluation import Evaluation, Measurement
from .splits import Splits


@EVALUATIONS.register_module()
@dataclass(frozen=True)
class LinearProbe(ProbeSettings, Evaluation):
    """Linear classifiers, the best of many settings.

    The bank trains them, a part of it chooses, the queries judge.
    """

    task = 'linear'
    title = 'linear probe'

    def measure(self, model: Any, data: Splits) -> list[Measurement]:
        """Extract features of both splits and train on them."""
        start = time.perf_counter()
        result = linear_probe(*data.extract(model), self, get_device())
        best = result.best
        title = (
            f'linear probe (lr {best.lr:g}, weight decay '
            f'{best.weight_decay:g}, best of {len(result.candidates)}, '
            f'{time.perf_counter() - start:.0f} s)'
        )
        chosen = {'lr': best.lr, 'weight_decay': best.weight_decay}
        return [Measurement(result.metrics, chosen, title)]
