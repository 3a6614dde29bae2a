from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from mmmoco.registry import MODELS
from mmmoco.two_phase import Dictionary

from ..encoders import check_width
from .momentum_contrast import MomentumContrast, last_output


@MODELS.register_module()
class MoCoV3(MomentumContrast):
    """MoCo v3 (algorithm 1 of its paper): symmetric, with a predictor.

    The negatives of a query are the other images' keys of this step, of all
    processes. With a :class:`Queue` as dictionary they are the stored keys
    instead, and the queue receives the keys of ``view_2``; the positive of a
    query is the key of the other view in any case.

    The loss belongs to ``dict(type='InfoNCE', scale_by_2tau=True)``.

    `MoCo v3 <https://arxiv.org/abs/2104.02057>`_.

    Args:
        neck: Config of the projection; its ``in_channels`` may be left out.
        loss: Config of the contrastive loss.
        predictor: Config of the predictor, which follows the projection on
            the query side only.
        dictionary: Config of the dictionary; its keys must come from the key
            encoder.
        m: Weight of the old key parameters at the start.
        m_schedule: ``'cosine'`` (from m to 1) or ``'constant'``.
        **kwargs: As for :class:`MomentumContrast`.
    """

    dictionary: Dictionary

    look_ups = 2

    def __init__(
        self,
        *,
        neck: dict[str, Any],
        loss: dict[str, Any],
        predictor: dict[str, Any],
        dictionary: dict[str, Any] | None = None,
        m: float = 0.99,
        m_schedule: str = 'cosine',
        **kwargs: Any,
    ) -> None:
        check_width(neck, 'predictor', predictor)
        super().__init__(
            neck=neck,
            loss=loss,
            dictionary=dictionary or dict(type='InBatch'),
            m=m,
            m_schedule=m_schedule,
            **kwargs,
        )
        if self.key_encoder is None:
            raise ValueError(
                f'MoCoV3 takes its keys from the key encoder, but dictionary='
                f'{dictionary} does without: use InBatch or Queue.'
            )
        self.predictor = MODELS.build(predictor)

    def encode_query(self, x: Tensor) -> Tensor:
        """Return the predictions, N×C, L2-normalised."""
        q = last_output(self.predictor((self.project(x),)))
        return self.noted(F.normalize(q.float(), dim=1))

    def loss(
        self,
        inputs: Mapping[str, Tensor],
        ids: Tensor,
        **groups: Tensor,
    ) -> dict[str, Tensor]:
        """Look up each view among the keys of the other.

        Args:
            inputs: ``view_1`` and ``view_2``, each N×C×H×W. Each passes the
                encoders as a batch of its own, BatchNorm included.
            ids: N sample ids, −1 where unknown.
            **groups: ``groups``, N numbers, if the dictionary wants them.
        """
        # Keys first: they keep no activations.
        k1 = self.encode_key(inputs['view_1'])  # N×C, no gradient
        k2 = self.encode_key(inputs['view_2'])
        q1 = self.encode_query(inputs['view_1'])  # N×C
        q2 = self.encode_query(inputs['view_2'])
        log = self.look_up([(q1, k2), (q2, k1)], ids, **groups)
        # Never both views: a queue would hold every image twice.
        self.dictionary.stage(k2, ids, self.step, 0, **groups)
        return log
