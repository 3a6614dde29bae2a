"""DenseCL: momentum contrast for every cell of a map, too."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmmoco.functional import ShufflePlan
from mmmoco.registry import MODELS
from mmmoco.two_phase import Dictionary

from ..encoders import check_width
from .momentum_contrast import MomentumContrast, last_output


class Projections(NamedTuple):
    """What an encoder makes of N images, L2-normalised along the channels.

    Attributes:
        vector: N×C, the global projection.
        cells: N×C×S, the dense one.
        pooled: N×C, the mean of the dense one over the cells.
        features: N×D×S, the backbone's map, by which cells are compared; it
            has no gradient.
    """

    vector: Tensor
    cells: Tensor
    pooled: Tensor
    features: Tensor


@MODELS.register_module()
class DenseCL(MomentumContrast):
    """Momentum contrast of images, and of the cells of their maps.

    A second, dense head projects each cell. The positive of a query's cell
    is the key's cell whose backbone features are the most similar; its
    negatives are the means over the dense keys of earlier images, one for
    each image, in a queue of their own. The loss is
    (1 − λ) · global + λ · dense.

    `DenseCL <https://arxiv.org/abs/2011.09157>`_.

    Args:
        neck: Config of both heads, which give a vector, cells and their
            mean, as ``mmpretrain.DenseCLNeck`` does; ``in_channels`` may be
            left out. With its ``num_grid`` cells are compared on that grid.
        loss: Config of the contrastive loss, of both look-ups.
        dictionary: Config of the queue of keys.
        dense_dictionary: Config of the queue of the dense keys' means; as
            ``dictionary`` if None.
        loss_lambda: λ, the weight of the dense loss.
        warmup_iters: Training iterations with λ = 0, before the cells of a
            young backbone tell each other apart; 0, none, as published.
        **kwargs: As for :class:`MomentumContrast`.

    Raises:
        ValueError: If a dictionary keeps no keys of the key encoder, or λ is
            out of range.
    """

    has_shuffle_bn: ClassVar[bool] = True

    key_only_views = ('view_k',)

    look_ups = 1

    dictionary: Dictionary
    key_encoder: Any

    def __init__(
        self,
        *,
        neck: dict[str, Any],
        loss: dict[str, Any],
        dictionary: dict[str, Any],
        dense_dictionary: dict[str, Any] | None = None,
        loss_lambda: float = 0.5,
        warmup_iters: int = 0,
        **kwargs: Any,
    ) -> None:
        if not 0.0 <= loss_lambda <= 1.0 or warmup_iters < 0:
            raise ValueError(
                f'DenseCL(loss_lambda={loss_lambda}, warmup_iters='
                f'{warmup_iters}): loss_lambda must lie in [0, 1] (published: '
                '0.5), warmup_iters must not be negative.'
            )
        check_width(neck, 'dense_dictionary', dense_dictionary)
        super().__init__(neck=neck, loss=loss, dictionary=dictionary, **kwargs)
        self.dense_dictionary = MODELS.build(dense_dictionary or dictionary)
        for each in self.dictionary, self.dense_dictionary:
            if not each.has_state or not each.needs_keys:
                raise ValueError(
                    'DenseCL looks up among keys of the key encoder that are '
                    f'stored, but {type(each).__name__} stores none: use '
                    'Queue for model.dictionary and model.dense_dictionary.'
                )
        self.loss_lambda, self.warmup_iters = loss_lambda, warmup_iters

    @property
    def dense_weight(self) -> float:
        """λ in this iteration."""
        return self.loss_lambda if self.step >= self.warmup_iters else 0.0

    # ---------------------------------------------------------- encoders

    def project(self, x: Tensor) -> Tensor:
        """Return the query encoder's global projection, N×C."""
        vector: Tensor = self.neck(self.backbone(x))[0]
        return vector

    def keys_of(self, x: Tensor) -> Tensor:
        """Return the global keys of images, N×C; permute nothing."""
        return _unit(self.key_encoder(x)[0])

    @torch.no_grad()
    def encode_keys(
        self, x: Tensor, plan: ShufflePlan | None = None
    ) -> Projections:
        """Return all that keys are made of, in the order of the queries.

        Args:
            x: N×C×H×W.
            plan: As for :meth:`with_shuffle_bn`.
        """

        def encode(x: Tensor) -> Projections:
            return _projections(*self.key_encoder(x, every=True))

        return Projections(*self.with_shuffle_bn(encode, x, plan))

    # -------------------------------------------------------------- loss

    def chance(self, images: int) -> float:
        """log(K + 1) for K negatives of either look-up, weighted by λ."""
        dense = self.dense_weight
        parts = (1 - dense, self.dictionary), (dense, self.dense_dictionary)
        return sum(
            weight * (self.chance_in(each, images) or 0.0)
            for weight, each in parts
        )

    def loss(
        self,
        inputs: Mapping[str, Tensor],
        ids: Tensor,
        shuffle_plan: ShufflePlan | None = None,
        **groups: Tensor,
    ) -> dict[str, Tensor]:
        """Look up ``view_q``, and each cell of its map.

        Args:
            inputs: ``view_q`` and ``view_k``, each N×C×H×W.
            ids: N sample ids, −1 where unknown.
            shuffle_plan: By which the images of ``view_k`` were exchanged
                between the processes; None if they were not.
            **groups: ``groups``, N numbers, if a dictionary wants them.
        """
        # Keys first: they keep no activations.
        k = self.encode_keys(inputs['view_k'], shuffle_plan)
        features = self.backbone(inputs['view_q'])
        q = _projections(features, self.neck(features))
        # One row for each cell, N·S×C.
        q_cells = q.cells.transpose(1, 2).flatten(0, 1)
        k_cells = most_similar(q, k).transpose(1, 2).flatten(0, 1)
        count = q.cells.shape[2]
        own = {n: x.repeat_interleave(count) for n, x in groups.items()}
        log = self.look_up([(self.noted(q.vector), k.vector)], ids, **groups)
        cells = self.look_up_in(
            self.dense_dictionary,
            [(q_cells, k_cells)],
            ids.repeat_interleave(count),
            **own,
        )
        self.dictionary.stage(k.vector, ids, self.step, 0, **groups)
        self.dense_dictionary.stage(k.pooled, ids, self.step, 0, **groups)
        weight = self.dense_weight
        return {
            'loss_global': (1 - weight) * log.pop('loss'),
            'loss_dense': weight * cells.pop('loss'),
            **log,
            **{f'dense_{name}': value for name, value in cells.items()},
        }


@torch.no_grad()
def most_similar(q: Projections, k: Projections) -> Tensor:
    """Return, for each cell of a query, the key's cell that answers it.

    Returns:
        N×C×S, dense projections of the cells with the most similar features.
    """
    # In float32: rounded to bfloat16, many cells would be equally near.
    with torch.autocast(q.features.device.type, enabled=False):
        place = (q.features.transpose(1, 2) @ k.features).argmax(2)  # N×S
    return k.cells.gather(2, place[:, None].expand(-1, k.cells.shape[1], -1))


def _projections(outputs: Any, heads: tuple[Tensor, ...]) -> Projections:
    """Put together what a backbone and its neck give."""
    vector, cells, pooled = heads
    features = last_output(outputs).detach()
    if features.shape[2:].numel() != cells.shape[2]:
        side = math.isqrt(cells.shape[2])
        features = F.adaptive_avg_pool2d(features, side)
    parts = vector, cells, pooled, features.flatten(2)
    return Projections(*map(_unit, parts))


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x.float(), dim=1)
