from typing import Any

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from mmmoco.registry import MODELS


@MODELS.register_module()
class CLSContrastHead(BaseModule):
    """The projection in which class tokens are contrasted (MMC, L_CLS).

    Queries and keys are its outputs; the look-up itself is InfoNCE in the
    algorithm, as in every other method here.

    Args:
        projector: Config of an MLP for vectors, such as
            ``mmpretrain.NonLinearNeck`` without pooling.
    """

    def __init__(self, projector: dict[str, Any]) -> None:
        super().__init__()
        self.projector = MODELS.build(projector)

    def forward(self, cls: Tensor) -> Tensor:
        """Return N×C', L2-normalised, of N×C class tokens."""
        return F.normalize(self.projector((cls,))[-1].float(), dim=1)
