from torch import Tensor, nn

from mmmoco.functional import Candidates, Stats, info_nce
from mmmoco.registry import MODELS


@MODELS.register_module()
class InfoNCE(nn.Module):
    """Cross-entropy of the positive among the candidates (MoCo v1, eq. 1).

    Args:
        temperature: τ, divides the cosine similarities (v1: 0.07, v2: 0.2).
        scale_by_2tau: Multiply the loss by 2τ, as MoCo v3 does, so that its
            gradient does not depend on τ.
    """

    def __init__(
        self, temperature: float = 0.07, scale_by_2tau: bool = False
    ) -> None:
        super().__init__()
        if not 0.0 < temperature <= 10.0:
            raise ValueError(
                f'temperature={temperature} is outside (0, 10]; the papers '
                'use 0.07 (v1), 0.2 (v2, v3 on ViT) and 1.0 (v3 on ResNet).'
            )
        self.temperature = temperature
        self.scale = 2.0 * temperature if scale_by_2tau else 1.0

    def forward(
        self, q: Tensor, candidates: Candidates
    ) -> tuple[Tensor, Stats]:
        """Return the loss of N×C queries, and the look-up's statistics."""
        loss, stats = info_nce(q, candidates, self.temperature)
        return loss * self.scale, stats

    def extra_repr(self) -> str:
        """Shown when the model is printed."""
        return f'temperature={self.temperature}, scale={self.scale:g}'
