from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mmmoco.functional import ShufflePlan
from mmmoco.registry import MODELS

from .base import MomentumContrast
from .encoder_outputs import look_up_log


@MODELS.register_module(name=['MoCoV1', 'MoCoV2'])
class MoCo(MomentumContrast):
    """Momentum Contrast, versions 1 and 2 (algorithm 1 of the paper).

    The versions share the algorithm; they differ in neck, temperature, views
    and schedule, all of which the configs state. The paper's other two
    mechanisms are this algorithm with another dictionary.

    `MoCo v1 <https://arxiv.org/abs/1911.05722>`_,
    `MoCo v2 <https://arxiv.org/abs/2003.04297>`_.

    Args:
        symmetric: Let both views query: the two losses are added, and both
            key sets are stored, the keys of ``view_k`` before those of
            ``view_q``.
        **kwargs: As for :class:`MomentumContrast`.
    """

    def __init__(self, *, symmetric: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.symmetric = symmetric
        if symmetric:
            self.keys_per_image = 2
        if self.dictionary.needs_keys and not symmetric:
            self.key_only_views = ('view_k',)
        if symmetric and not self.dictionary.needs_keys:
            raise ValueError(
                'symmetric=True lets each view answer the other, but '
                f'{type(self.dictionary).__name__} answers by itself: leave '
                'symmetric off, or use another dictionary.'
            )

    def loss(
        self,
        inputs: Mapping[str, Tensor],
        ids: Tensor,
        shuffle: ShufflePlan | None = None,
    ) -> dict[str, Tensor]:
        """Look up ``view_q`` in the dictionary of keys.

        Args:
            inputs: ``view_q`` and ``view_k``, each N×C×H×W. A memory bank
                needs ``view_q`` alone.
            ids: N sample ids, −1 where unknown.
            shuffle: How the images of ``view_k`` were exchanged, if so.
        """
        if self.symmetric:
            return self._symmetric_loss(inputs, ids)
        # Keys first, which keep no activations for a backward pass: those of
        # the queries are not there yet.
        k = None
        if self.key_encoder is not None:
            k = self.encode_key(inputs['view_k'], shuffle)  # N×C
        q = self.encode_query(inputs['view_q'])  # N×C
        if k is None:
            # End-to-end; or what a memory bank stores.
            needs = self.dictionary.needs_keys
            k = self.encode_key(inputs['view_k'], shuffle) if needs else q
        candidates = self.dictionary.lookup(k, ids)
        loss, stats = self.contrast(q, candidates)
        self.dictionary.stage(k, ids, slot=self.step)
        return {'loss': loss, **look_up_log(stats)}

    def _symmetric_loss(
        self, inputs: Mapping[str, Tensor], ids: Tensor
    ) -> dict[str, Tensor]:
        if self.key_encoder is not None:
            k2 = self.encode_key(inputs['view_k'])  # N×C
            k1 = self.encode_key(inputs['view_q'])
        q1 = self.encode_query(inputs['view_q'])
        q2 = self.encode_query(inputs['view_k'])
        if self.key_encoder is None:
            k2 = self.encode_key(inputs['view_k'])
            k1 = self.encode_key(inputs['view_q'])
        loss_12, stats_12 = self.contrast(q1, self.dictionary.lookup(k2, ids))
        loss_21, stats_21 = self.contrast(q2, self.dictionary.lookup(k1, ids))
        self.dictionary.stage(k2, ids, slot=self.step, view=0)
        self.dictionary.stage(k1, ids, slot=self.step, view=1)
        return {'loss': loss_12 + loss_21, **look_up_log(stats_12, stats_21)}
