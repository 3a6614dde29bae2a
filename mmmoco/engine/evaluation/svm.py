"""Linear SVMs, whole and low-shot, as an evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mmmoco.evaluation.svm import SHOTS, svm_map
from mmmoco.registry import EVALUATIONS

from .evaluation import Evaluation, Measurement
from .splits import Splits


@EVALUATIONS.register_module()
@dataclass(frozen=True)
class SVM(Evaluation):
    """One linear SVM a class: mAP with the whole bank and with a few images.

    Attributes:
        shots: Images a class; those that a class cannot fill are left out.
        draws: Draws of each.
        seed: Of draws, folds and solver.
    """

    task = 'svm'
    title = 'SVM'

    shots: Sequence[int] = SHOTS
    draws: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.draws < 1 or min(self.shots, default=1) < 1:
            raise ValueError(
                f'draws={self.draws}, shots={self.shots}: each must be at '
                'least 1.'
            )

    def measure(self, model: Any, data: Splits) -> list[Measurement]:
        """Extract features of both splits and train on the bank's."""
        bank, query = data.extract(model)
        found = svm_map(bank, query, self.shots, self.draws, seed=self.seed)
        metrics = {'mAP': found.whole}
        for k, (mean, spread) in found.low_shot.items():
            metrics |= {f'mAP_{k}_shot': mean, f'mAP_{k}_shot_std': spread}
        return [Measurement(metrics, title='SVM')]
