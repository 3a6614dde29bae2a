"""BYOL (arXiv 2006.07733) on the contract of mmmoco."""

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from mmmoco.models.algorithms import MomentumContrast
from mmmoco.registry import MODELS


@MODELS.register_module()
class BYOL(MomentumContrast):
    """Predict the key of the other view: no negatives, no dictionary.

    Args:
        predictor: Config of the predictor, which the key encoder has not.
        **kwargs: As for MomentumContrast.
    """

    def __init__(self, *, predictor: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.predictor = MODELS.build(predictor)

    def encode_query(self, x: Tensor) -> Tensor:
        """Return the predictions, N×C, L2-normalised."""
        q = self.predictor((self.project(x),))[-1]
        return self.noted(F.normalize(q.float(), dim=1))

    def loss(
        self, inputs: Mapping[str, Tensor], ids: Tensor
    ) -> dict[str, Tensor]:
        """Return the distance of each prediction to the other view's key."""
        views = inputs['view_q'], inputs['view_k']
        k1, k2 = map(self.encode_key, views)
        q1, q2 = map(self.encode_query, views)
        similarity = (q1 * k2).sum(1).mean() + (q2 * k1).sum(1).mean()
        return {'loss': 4 - 2 * similarity, 'pos_sim': similarity.detach() / 2}
