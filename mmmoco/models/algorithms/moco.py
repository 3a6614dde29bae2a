from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from mmmoco.functional import ShufflePlan
from mmmoco.registry import MODELS
from mmmoco.two_phase import Dictionary

from .momentum_contrast import MomentumContrast


@MODELS.register_module(name=['MoCoV1', 'MoCoV2'])
class MoCo(MomentumContrast):
    """Momentum Contrast, versions 1 and 2 (algorithm 1 of the paper).

    The versions share the algorithm; they differ in neck, temperature, views
    and schedule, all of which the configs state. The paper's other two
    mechanisms are this algorithm with another dictionary.

    `MoCo v1 <https://arxiv.org/abs/1911.05722>`_,
    `MoCo v2 <https://arxiv.org/abs/2003.04297>`_.

    Args:
        loss: Config of the contrastive loss.
        dictionary: Config of the dictionary.
        symmetric: Let both views query: the two losses are added, and both
            key sets are stored, the keys of ``view_k`` before those of
            ``view_q``.
        **kwargs: As for :class:`MomentumContrast`.
    """

    has_shuffle_bn: ClassVar[bool] = True

    dictionary: Dictionary

    def __init__(
        self,
        *,
        loss: dict[str, Any],
        dictionary: dict[str, Any],
        symmetric: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(loss=loss, dictionary=dictionary, **kwargs)
        self.symmetric = symmetric
        self.look_ups = 2 if symmetric else 1
        if symmetric:
            self.keys_per_image = 2
        if self.needs_keys and not symmetric:
            self.key_only_views = ('view_k',)
        if symmetric and not self.needs_keys:
            raise ValueError(
                'symmetric=True lets each view answer the other, but '
                f'{type(self.dictionary).__name__} answers by itself: leave '
                'symmetric off, or use another dictionary.'
            )

    def loss(
        self,
        inputs: Mapping[str, Tensor],
        ids: Tensor,
        shuffle_plan: ShufflePlan | None = None,
        **groups: Tensor,
    ) -> dict[str, Tensor]:
        """Look up ``view_q`` in the dictionary of keys.

        Args:
            inputs: ``view_q`` and ``view_k``, each N×C×H×W. A memory bank
                needs ``view_q`` alone.
            ids: N sample ids, −1 where unknown.
            shuffle_plan: By which the images of ``view_k`` were exchanged
                between the processes; None if they were not.
            **groups: ``groups``, N numbers, if the dictionary wants them.
        """
        pairs = [('view_q', 'view_k'), ('view_k', 'view_q')]
        if not self.symmetric:
            pairs = pairs[:1]

        def keys() -> list[Tensor]:
            return [self.encode_key(inputs[k], shuffle_plan) for _, k in pairs]

        # Keys first, which keep no activations for a backward pass: those of
        # the queries are not there yet.
        k = keys() if self.key_encoder is not None else None
        q = [self.encode_query(inputs[q]) for q, _ in pairs]  # N×C each
        if k is None:
            # End-to-end; or what a memory bank stores.
            k = keys() if self.needs_keys else q
        log = self.look_up(zip(q, k, strict=True), ids, **groups)
        for view, each in enumerate(k):
            self.dictionary.stage(each, ids, self.step, view, **groups)
        return log
