from collections.abc import Mapping

from torch import Tensor

from mmmoco.registry import MODELS

from .base import MomentumContrast, look_up_log


@MODELS.register_module(name=['MoCoV1', 'MoCoV2'])
class MoCo(MomentumContrast):
    """Momentum Contrast, versions 1 and 2 (algorithm 1 of the paper).

    The versions share the algorithm; they differ in neck, temperature, views
    and schedule, all of which the configs state.

    `MoCo v1 <https://arxiv.org/abs/1911.05722>`_,
    `MoCo v2 <https://arxiv.org/abs/2003.04297>`_.
    """

    def loss(
        self, inputs: Mapping[str, Tensor], ids: Tensor
    ) -> dict[str, Tensor]:
        """Look up ``view_q`` in the dictionary of keys.

        Args:
            inputs: ``view_q`` and ``view_k``, each N×C×H×W.
            ids: N sample ids, −1 where unknown.
        """
        q = self.encode_query(inputs['view_q'])  # N×C
        k = self.encode_key(inputs['view_k'])  # N×C, no gradient
        candidates = self.dictionary.lookup(k, ids)
        loss, stats = self.contrast(q, candidates)
        self.dictionary.stage(k, ids, slot=self.step)
        return {'loss': loss, **look_up_log(stats)}
