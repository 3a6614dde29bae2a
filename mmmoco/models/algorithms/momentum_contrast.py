import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from mmengine.dist import get_world_size
from torch import Tensor, nn

from mmmoco.functional import (
    ShufflePlan,
    Stats,
    shuffle,
    shuffle_plan,
    unshuffle,
)
from mmmoco.registry import MODELS
from mmmoco.two_phase import Dictionary, TwoPhaseModel

from ..encoders import (
    KeyEncoder,
    build_neck,
    check_channels,
    check_momentum,
    check_width,
    momentum_at,
)
from .batch_norm_guard import choose_shuffle_bn


class MomentumContrast(TwoPhaseModel):
    """What MoCo v1, v2, v3 and MMC share: a query and a key encoder.

    The dictionary decides who makes the keys: the key encoder (the moving
    average), the query encoder (end-to-end), or nobody (memory bank). Only
    in the first case, and without a dictionary, is there a key encoder.

    Args:
        backbone: Config of the backbone, ``type`` with its scope.
        neck: Config of the projection; its ``in_channels`` may be left out.
        m: Weight of the old key parameters, as in the papers. Has no effect
            without a key encoder.
        loss: Config of the contrastive loss.
        dictionary: Config of the dictionary.
        m_schedule: ``'constant'`` or ``'cosine'`` (from m to 1).
        allow_any_m: Allow m below 0.5.
        **kwargs: As for :class:`TwoPhaseModel`.
    """

    #: Whether the method permutes its keys where BatchNorm asks for it.
    has_shuffle_bn: ClassVar[bool] = False

    #: Views that are encoded as keys only: several processes may exchange
    #: their raw images instead of the finished ones.
    key_only_views: Sequence[str] = ()

    def __init__(
        self,
        backbone: dict[str, Any],
        neck: dict[str, Any],
        m: float,
        loss: dict[str, Any] | None = None,
        dictionary: dict[str, Any] | None = None,
        m_schedule: str = 'constant',
        allow_any_m: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_momentum(m, m_schedule, allow_any_m)
        check_width(neck, 'dictionary', dictionary)
        self.m, self.m_schedule = m, m_schedule
        self.build_query_encoder(backbone, neck)
        #: Whether keys are encoded at all, and whether they are learnt by.
        self.needs_keys, self.key_grad = True, False
        if dictionary is not None:
            self.dictionary = MODELS.build(dictionary)
            self.needs_keys = self.dictionary.needs_keys
            self.key_grad = self.dictionary.key_grad
        if loss is not None:
            self.contrast = MODELS.build(loss)
        if self.needs_keys and not self.key_grad:
            encoder = KeyEncoder(**self.query_modules())
            setattr(self, self.key_encoder_name, encoder)
        if self.channels_last:
            self.to(memory_format=torch.channels_last)

    # ------------------------------------------------ called by the hooks

    def set_address(
        self, seed: int, step: int, rank: int, epoch: int | None = None
    ) -> None:
        """Say which iteration comes next, and who exchanges key images."""
        super().set_address(seed, step, rank, epoch)
        if hasattr(self.contrast, 'set_address'):
            self.contrast.set_address(seed, step, epoch)
        exchange = get_world_size() > 1 and self.shuffle_bn
        preprocessor = cast(Any, self.data_preprocessor)
        preprocessor.shuffled_views = self.key_only_views if exchange else ()

    def momentum_at(self, progress: float) -> float:
        """Return m at a fraction of the training (0 … 1)."""
        return momentum_at(self.m, self.m_schedule, progress)

    def update_key_encoder(self, m: float) -> None:
        """Move the key encoder towards the query encoder (v1, eq. 2)."""
        if isinstance(self.key_encoder, KeyEncoder):
            self.key_encoder.update(self.query_modules(), m)

    def reset_key_encoder(self) -> None:
        """Make the key encoder a copy of the query encoder."""
        if isinstance(self.key_encoder, KeyEncoder):
            self.key_encoder.copy_from(self.query_modules())

    # ---------------------------------------------------------- encoders

    def build_query_encoder(
        self, backbone: dict[str, Any], neck: dict[str, Any]
    ) -> None:
        """Build the modules that :meth:`query_modules` names."""
        self.backbone = MODELS.build(backbone)
        check_channels(self.backbone, backbone, self.data_preprocessor)
        self.neck = build_neck(neck, self.backbone, backbone)

    def query_modules(self) -> Mapping[str, nn.Module]:
        """The modules that the key encoder averages, by name."""
        return {'backbone': self.backbone, 'neck': self.neck}

    def init_weights(self) -> None:
        """Initialise, then let the key encoder start as a copy."""
        super().init_weights()
        self.reset_key_encoder()

    def project(self, x: Tensor) -> Tensor:
        """Return the query encoder's projection, N×C, of any length."""
        return last_output(self.neck(self.backbone(x)))

    def encode_query(self, x: Tensor) -> Tensor:
        """Return the queries, N×C, L2-normalised."""
        return self.noted(F.normalize(self.project(x).float(), dim=1))

    def noted(self, q: Tensor) -> Tensor:
        """Keep the queries of a training forward for the monitors."""
        if self.training:
            self.queries = q.detach()
        return q

    def encode_key(self, x: Tensor, plan: ShufflePlan | None = None) -> Tensor:
        """Return the keys, N×C, L2-normalised, in the order of the queries.

        Without gradient, except for a dictionary that wants it.

        Args:
            x: N×C×H×W.
            plan: As for :meth:`with_shuffle_bn`.

        Raises:
            RuntimeError: If the dictionary takes no keys.
        """
        if not self.needs_keys:
            raise RuntimeError(
                f'{type(self.dictionary).__name__} takes no keys; its entries '
                'come from the queries.'
            )
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.key_grad):
            keys: Tensor = self.with_shuffle_bn(self.keys_of, x, plan)
        return keys

    def keys_of(self, x: Tensor) -> Tensor:
        """Return the keys of images, N×C, L2-normalised; permute nothing."""
        encode = self.key_encoder or self.project
        return F.normalize(last_output(encode(x)).float(), dim=1)

    def with_shuffle_bn(
        self,
        encode: Callable[[Tensor], Any],
        x: Tensor,
        plan: ShufflePlan | None = None,
    ) -> Any:
        """Encode key images beside other ones than their queries', if needed.

        Args:
            encode: Takes images N×C×H×W, returns N×… in their order, one
                tensor or several.
            x: N×C×H×W.
            plan: By which the images of ``x`` were already exchanged between
                the processes; None: they were not.

        Returns:
            N×…, in the order of the queries; several as a list.
        """
        if plan is None:
            if not self.shuffle_bn:
                return encode(x)
            plan = shuffle_plan(len(x), self.seed, self.step, x.device)
            x = self.in_layout(shuffle(x, plan))
        encoded = encode(x)
        if isinstance(encoded, Tensor):
            return unshuffle(encoded, plan)
        return [unshuffle(each, plan) for each in encoded]

    @cached_property
    def shuffle_bn(self) -> bool:
        """Whether keys are permuted; decided once, with a line in the log."""
        if self.dictionary is None:
            return False  # Without negatives there is nothing to give away.
        return choose_shuffle_bn(
            type(self).__name__,
            self.key_path(),
            get_world_size(),
            available=self.has_shuffle_bn,
            stored_negatives=self.dictionary.has_state,
        )

    def key_path(self) -> Sequence[nn.Module]:
        """The modules that encode the keys."""
        if not self.needs_keys:
            return ()
        if self.key_encoder is None:
            return tuple(self.query_modules().values())
        return (self.key_encoder,)

    def encoders(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """The backbone's last output over all pixels, and the projection."""

        def pooled(x: Tensor) -> Tensor:
            feature = last_output(self.backbone(x))
            return feature.mean((2, 3)) if feature.dim() == 4 else feature

        return {
            'backbone': pooled,
            'neck': lambda x: F.normalize(self.project(x).float(), dim=1),
        }

    # -------------------------------------------------------------- loss

    #: Look-ups that a loss adds up; 0: it is not made of them alone.
    look_ups: int = 0

    def chance(self, images: int) -> float | None:
        """log(K + 1) for K negatives, times what the loss is scaled by."""
        return self.chance_in(self.dictionary, images)

    def chance_in(
        self, dictionary: Dictionary | None, images: int
    ) -> float | None:
        """The same for a dictionary."""
        among = dictionary and dictionary.candidates(images)
        if not among or not self.look_ups:
            return None
        among += int(getattr(self.contrast, 'synthetic', 0))
        scale = float(getattr(self.contrast, 'scale', 1.0))
        return self.look_ups * scale * math.log(among)

    def look_up(
        self,
        pairs: Iterable[tuple[Tensor, Tensor]],
        ids: Tensor,
        **groups: Tensor,
    ) -> dict[str, Tensor]:
        """Look queries up in the dictionary, as :meth:`look_up_in` does."""
        dictionary = cast(Dictionary, self.dictionary)
        return self.look_up_in(dictionary, pairs, ids, **groups)

    def look_up_in(
        self,
        dictionary: Dictionary,
        pairs: Iterable[tuple[Tensor, Tensor]],
        ids: Tensor,
        **groups: Tensor,
    ) -> dict[str, Tensor]:
        """Look queries up in a dictionary, and add the losses.

        Args:
            dictionary: One of the model's.
            pairs: N×C queries, each with the N×C keys of the other view.
            ids: N sample ids.
            **groups: ``groups``, N numbers, if the dictionary wants them.

        Returns:
            The loss, :func:`mean_stats`, and what is excluded.
        """
        results, log = [], dict[str, Tensor]()
        for q, k in pairs:
            found = dictionary.lookup(k, ids, **groups)
            results.append(self.contrast(q, found))
            if dictionary.exclude and not log:
                log = found.excluded()
        losses, stats = zip(*results, strict=True)
        return {'loss': sum(losses[1:], losses[0]), **mean_stats(stats), **log}


def mean_stats(stats: Iterable[Stats]) -> dict[str, Tensor]:
    """The statistics under the names of the log, averaged over look-ups."""
    values = zip(*(vars(each).values() for each in stats), strict=True)
    names = ('pos_sim', 'neg_sim', 'top1', 'hard_sim')
    return {
        name: torch.stack(each).mean()
        for name, each in zip(names, values, strict=True)
        if None not in each
    }


def last_output(outputs: Tensor | tuple[Tensor, ...]) -> Tensor:
    """OpenMMLab's backbones and necks return tuples; take the last."""
    return outputs if isinstance(outputs, Tensor) else outputs[-1]
