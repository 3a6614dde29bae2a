from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from mmengine.dist import get_world_size
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmmoco.functional import (
    ShufflePlan,
    check_momentum,
    momentum_at,
    shuffle,
    shuffle_plan,
    unshuffle,
)
from mmmoco.registry import MODELS

from ..encoders import KeyEncoder
from .batch_norm_guard import choose_shuffle
from .encoder_outputs import last_output, only_view

UPDATE_KEY_ENCODER = 'KeyEncoderUpdateHook'
UPDATE_DICTIONARY = 'DictionaryUpdateHook'


class MomentumContrast(BaseModel):
    """The loop that MoCo v1, v2, v3 and MMC share.

    Two phases: :meth:`loss` reads the state and returns losses; two hooks
    write it after a real optimizer step, through :meth:`update_key_encoder`
    and :meth:`commit_keys`. The hooks that the dictionary calls for must
    announce themselves before training, else :meth:`loss` refuses to run:
    without them the key encoder would silently stay at its initial weights.

    The dictionary decides who makes the keys: the key encoder (the moving
    average), the query encoder (end-to-end), or nobody (memory bank). Only
    in the first case is there a key encoder at all; else it is None.

    Args:
        backbone: Config of the backbone, ``type`` with its scope.
        neck: Config of the projection.
        loss: Config of the contrastive loss.
        dictionary: Config of the dictionary.
        m: Weight of the old key parameters, as in the papers. Has no effect
            without a key encoder.
        m_schedule: ``'constant'`` or ``'cosine'`` (from m to 1).
        allow_any_m: Allow m below 0.5.
        channels_last: Use the channels_last memory format.
        data_preprocessor: Config of the preprocessor.
        init_cfg: Initialisation, as everywhere in OpenMMLab.
    """

    #: Hooks without which training would be silently wrong.
    needs: frozenset[str]

    #: Keys that one image brings in one forward.
    keys_per_image: int = 1

    #: Views that are encoded as keys only: several processes may exchange
    #: their raw images instead of the finished ones.
    key_only_views: Sequence[str] = ()

    #: Where the key encoder stands in the state dict.
    key_encoder_name: ClassVar[str] = 'key_encoder'

    def __init__(
        self,
        backbone: dict[str, Any],
        neck: dict[str, Any],
        loss: dict[str, Any],
        dictionary: dict[str, Any],
        m: float,
        m_schedule: str = 'constant',
        allow_any_m: bool = False,
        channels_last: bool = False,
        data_preprocessor: Any = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        if data_preprocessor is not None:
            # In our registry, whatever the default scope is.
            data_preprocessor = MODELS.build(data_preprocessor)
        super().__init__(data_preprocessor, init_cfg)
        check_momentum(m, m_schedule, allow_any_m)
        self.m, self.m_schedule = m, m_schedule
        self.build_query_encoder(backbone, neck)
        self.dictionary = MODELS.build(dictionary)
        self.contrast = MODELS.build(loss)
        needs = {UPDATE_DICTIONARY} if self.dictionary.has_state else set()
        if self.dictionary.needs_keys and not self.dictionary.key_grad:
            # Not by attribute: the name is the property below.
            self._modules[self.key_encoder_name] = KeyEncoder(
                **self.query_modules()
            )
            needs.add(UPDATE_KEY_ENCODER)
        self.needs = frozenset(needs)
        self.channels_last = channels_last
        if channels_last:
            self.to(memory_format=torch.channels_last)
        self._announced: set[str] = set()
        self._shuffles: bool | None = None
        self.seed, self.step = 0, 0
        #: N×C queries of the last training forward, for the monitors.
        self.queries: Tensor | None = None

    # ------------------------------------------------ called by the hooks

    def announce(self, hook: str) -> None:
        """A hook says, before training, that it will do its work."""
        self._announced.add(hook)

    def set_address(self, seed: int, step: int, rank: int) -> None:
        """Say where in the run the next batch stands.

        Args:
            seed: Seed of the run, equal on all processes.
            step: Training iteration (micro-batch).
            rank: This process.
        """
        self.seed, self.step = seed, step
        self.dictionary.set_address(seed, step)
        preprocessor = cast(Any, self.data_preprocessor)
        if hasattr(preprocessor, 'set_address'):
            preprocessor.set_address(seed, step, rank)
        if hasattr(preprocessor, 'exchanged_views'):
            exchange = get_world_size() > 1 and self._permutes_keys()
            preprocessor.exchanged_views = (
                self.key_only_views if exchange else ()
            )

    def momentum_at(self, progress: float) -> float:
        """Return m at a fraction of the training (0 … 1)."""
        return momentum_at(self.m, self.m_schedule, progress)

    def update_key_encoder(self, m: float) -> None:
        """Move the key encoder towards the query encoder (v1, eq. 2)."""
        if self.key_encoder is not None:
            self.key_encoder.update(self.query_modules(), m)

    def reset_key_encoder(self) -> None:
        """Make the key encoder a copy of the query encoder."""
        if self.key_encoder is not None:
            self.key_encoder.copy_from(self.query_modules())

    def check_key_encoder(self) -> None:
        """Refuse a key encoder that an optimizer could move.

        Raises:
            RuntimeError: If a parameter of it requires a gradient.
        """
        if self.key_encoder is None:
            return
        learnt = [
            name
            for name, parameter in self.key_encoder.named_parameters()
            if parameter.requires_grad
        ]
        if learnt:
            raise RuntimeError(
                f'{len(learnt)} parameters of the key encoder require a '
                f'gradient (first: {self.key_encoder_name}.{learnt[0]}). It '
                'moves by its average alone: do not unfreeze it.'
            )

    def commit_keys(self) -> None:
        """Write the staged keys: the optimizer step was taken."""
        self.dictionary.commit()

    def discard_keys(self) -> None:
        """Forget the staged keys: the optimizer step was not taken."""
        self.dictionary.discard()

    # ---------------------------------------------------------- encoders

    def build_query_encoder(
        self, backbone: dict[str, Any], neck: dict[str, Any]
    ) -> None:
        """Build the modules that :meth:`query_modules` names."""
        self.backbone = MODELS.build(backbone)
        self.neck = MODELS.build(neck)

    @property
    def key_encoder(self) -> KeyEncoder | None:
        """The moving average of the query encoder, if there is one."""
        return cast(
            'KeyEncoder | None', self._modules.get(self.key_encoder_name)
        )

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
        return self._noted(F.normalize(self.project(x).float(), dim=1))

    def _noted(self, q: Tensor) -> Tensor:
        if self.training:
            self.queries = q.detach()
        return q

    def encode_key(
        self, x: Tensor, exchanged: ShufflePlan | None = None
    ) -> Tensor:
        """Return the keys, N×C, L2-normalised, in the order of the queries.

        Without gradient, except for a dictionary that wants it.

        Args:
            x: N×C×H×W.
            exchanged: The plan by which the images of ``x`` were already
                exchanged between the processes; None: not exchanged.

        Raises:
            RuntimeError: If the dictionary takes no keys.
        """
        if not self.dictionary.needs_keys:
            raise RuntimeError(
                f'{type(self.dictionary).__name__} takes no keys; its entries '
                'come from the queries.'
            )
        with_grad = torch.is_grad_enabled() and self.dictionary.key_grad
        with torch.set_grad_enabled(with_grad):
            if exchanged is None and self._permutes_keys():
                exchanged = shuffle_plan(
                    len(x), self.seed, self.step, x.device
                )
                x = self._layout(shuffle(x, exchanged))
            if self.key_encoder is None:
                k = self.project(x)
            else:
                k = last_output(self.key_encoder(x))
            k = F.normalize(k.float(), dim=1)
            return k if exchanged is None else unshuffle(k, exchanged)

    @torch.no_grad()
    def probe_keys(self, x: Tensor) -> Tensor:
        """Return the keys of a few images, N×C, and leave no trace.

        BatchNorm takes the statistics of these images, as in training, and
        its running ones stay as they are. Nothing is permuted.

        Args:
            x: N×C×H×W, normalised.

        Raises:
            RuntimeError: If there is no key encoder.
        """
        if self.key_encoder is None:
            raise RuntimeError('There is no key encoder to probe.')
        buffers = [(own, own.clone()) for own in self.key_encoder.buffers()]
        try:
            k = last_output(self.key_encoder(self._layout(x)))
        finally:
            for own, kept in buffers:
                own.copy_(kept)
        return F.normalize(k.float(), dim=1)

    def extract_feat(self, x: Tensor, stage: str = 'backbone') -> Tensor:
        """Return features of images, N×C.

        Args:
            x: N×C×H×W, normalised.
            stage: ``'backbone'``: its last output, averaged over the pixels;
                ``'neck'``: the L2-normalised projection.

        Raises:
            ValueError: If the stage is unknown.
        """
        if stage == 'neck':
            return F.normalize(self.project(self._layout(x)).float(), dim=1)
        if stage != 'backbone':
            raise ValueError(
                f"stage={stage!r} is unknown; use 'backbone' or 'neck'."
            )
        feature = last_output(self.backbone(self._layout(x)))
        return feature.mean((2, 3)) if feature.dim() == 4 else feature

    # -------------------------------------------------------------- loss

    def forward(
        self,
        inputs: Mapping[str, Tensor] | Tensor,
        ids: Tensor | None = None,
        mode: str = 'tensor',
        shuffle: ShufflePlan | None = None,
        **_: Any,
    ) -> Any:
        """Dispatch as OpenMMLab's models do.

        Args:
            inputs: Views by name, each N×C×H×W; or, except for training,
                one tensor.
            ids: N sample ids, −1 where unknown.
            mode: ``'loss'`` for training, ``'tensor'`` for features.
            shuffle: How the preprocessor exchanged the key images between
                the processes, if it did.
        """
        if mode == 'tensor':
            x = inputs if isinstance(inputs, Tensor) else only_view(inputs)
            return self.extract_feat(x)
        if mode != 'loss':
            raise ValueError(
                f"mode={mode!r}: a pre-training model has 'loss' and "
                "'tensor'; evaluate it with tools/knn.py."
            )
        assert isinstance(inputs, Mapping)
        views = {name: self._layout(x) for name, x in inputs.items()}
        if ids is None:
            ids = torch.full((len(next(iter(views.values()))),), -1)
        if self.training:
            self._require_hooks()
        ids = ids.to(next(iter(views.values())).device)
        return self.loss(views, ids, shuffle)

    def loss(
        self,
        inputs: Mapping[str, Tensor],
        ids: Tensor,
        shuffle: ShufflePlan | None = None,
    ) -> dict[str, Tensor]:
        """Return the loss and the statistics of the look-up.

        Args:
            inputs: Normalised views by name, each N×C×H×W.
            ids: N sample ids, −1 where unknown.
            shuffle: The plan by which the images of ``key_only_views`` were
                exchanged between the processes; None if they were not.
        """
        raise NotImplementedError

    def _require_hooks(self) -> None:
        missing = self.needs - self._announced
        if missing:
            raise RuntimeError(
                f'{type(self).__name__} trains only together with '
                f'{" and ".join(sorted(missing))}, which did not announce '
                'itself. Add custom_hooks of configs/_base_/'
                'default_runtime.py to the config; in a loop of your own, '
                "call model.announce(...) and do the hook's work after "
                'every optimizer step.'
            )

    # --------------------------------------------------- batch norm leak

    def _permutes_keys(self) -> bool:
        if self._shuffles is None:
            self._shuffles = self.choose_shuffle()
        return self._shuffles

    def choose_shuffle(self) -> bool:
        """Decide, once and with a line in the log, about ShuffleBN."""
        return choose_shuffle(self.key_path(), get_world_size())

    def key_path(self) -> Sequence[nn.Module]:
        """The modules that encode the keys."""
        if not self.dictionary.needs_keys:
            return ()
        if self.key_encoder is None:
            return tuple(self.query_modules().values())
        return (self.key_encoder,)

    def _layout(self, x: Tensor) -> Tensor:
        if self.channels_last and x.dim() == 4:
            return x.contiguous(memory_format=torch.channels_last)
        return x
