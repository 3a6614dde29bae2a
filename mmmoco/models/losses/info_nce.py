from typing import Any

from torch import Tensor, nn

from mmmoco.functional import Candidates, Stats, info_nce
from mmmoco.registry import MODELS

from .hard_negatives import HardNegatives


@MODELS.register_module()
class InfoNCE(nn.Module):
    """Cross-entropy of the positive among the candidates (MoCo v1, eq. 1).

    Args:
        temperature: τ, divides the cosine similarities (v1: 0.07, v2: 0.2).
        scale_by_2tau: Multiply the loss by 2τ, as MoCo v3 does, so that its
            gradient does not depend on τ.
        hard_negatives: Config of :class:`HardNegatives`; None: every
            negative is a key of the dictionary.
    """

    def __init__(
        self,
        temperature: float = 0.07,
        scale_by_2tau: bool = False,
        hard_negatives: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if not 0.0 < temperature <= 10.0:
            raise ValueError(
                f'temperature={temperature} is outside (0, 10]; the papers '
                'use 0.07 (v1), 0.2 (v2, v3 on ViT) and 1.0 (v3 on ResNet).'
            )
        self.temperature = temperature
        self.scale = 2.0 * temperature if scale_by_2tau else 1.0
        self.hard_negatives: HardNegatives | None = None
        if hard_negatives is not None:
            self.hard_negatives = MODELS.build(hard_negatives)

    @property
    def synthetic(self) -> int:
        """Negatives of a query beside those of the dictionary."""
        hard = self.hard_negatives
        return hard.s + hard.s2 if hard else 0

    def set_address(self, seed: int, step: int, epoch: int | None) -> None:
        """Say which iteration comes next (for the draws)."""
        if self.hard_negatives:
            self.hard_negatives.set_address(seed, step, epoch)

    def forward(
        self, q: Tensor, candidates: Candidates
    ) -> tuple[Tensor, Stats]:
        """Return the loss of N×C queries, and the look-up's statistics."""
        mixing = None
        if self.hard_negatives:
            mixing = self.hard_negatives.mixing(len(q), candidates.keys)
        loss, stats = info_nce(q, candidates, self.temperature, mixing)
        return loss * self.scale, stats

    def extra_repr(self) -> str:
        """Shown when the model is printed."""
        text = f'temperature={self.temperature}, scale={self.scale:g}'
        return f'{text}, {self.hard_negatives}' if self.synthetic else text
