import logging
from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from mmengine.dist import get_world_size
from mmengine.logging import print_log
from mmengine.model import BaseModel
from torch import Tensor, nn

from mmmoco.functional import (
    ShufflePlan,
    Stats,
    check_momentum,
    gather,
    momentum_at,
    shuffle_plan,
    unshuffle,
)
from mmmoco.registry import MODELS

from ..encoders import KeyEncoder

UPDATE_KEY_ENCODER = 'KeyEncoderUpdateHook'
UPDATE_DICTIONARY = 'DictionaryUpdateHook'

_NO_GUARD = (
    'none. On one process, plain BatchNorm lets the network find the positive '
    'by the statistics of its batch instead of by the image; use '
    "norm_cfg=dict(type='SplitBN', num_splits=8) in the backbone, or several "
    'processes'
)


class MomentumContrast(BaseModel):
    """The loop that MoCo v1, v2, v3 and MMC share.

    Two phases: :meth:`loss` reads the state and returns losses; two hooks
    write it after a real optimizer step, through :meth:`update_key_encoder`
    and :meth:`commit_keys`. Both hooks must announce themselves before
    training, else :meth:`loss` refuses to run: without them the key encoder
    would silently stay at its initial weights.

    Args:
        backbone: Config of the backbone, ``type`` with its scope.
        neck: Config of the projection.
        loss: Config of the contrastive loss.
        dictionary: Config of the dictionary.
        m: Weight of the old key parameters, as in the papers.
        m_schedule: ``'constant'`` or ``'cosine'`` (from m to 1).
        allow_any_m: Allow m below 0.5.
        channels_last: Use the channels_last memory format.
        data_preprocessor: Config of the preprocessor.
        init_cfg: Initialisation, as everywhere in OpenMMLab.
    """

    #: Hooks without which training would be silently wrong.
    needs: frozenset[str] = frozenset({UPDATE_KEY_ENCODER, UPDATE_DICTIONARY})

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
        self.backbone = MODELS.build(backbone)
        self.neck = MODELS.build(neck)
        self.key_encoder = KeyEncoder(**self.query_modules())
        self.dictionary = MODELS.build(dictionary)
        self.contrast = MODELS.build(loss)
        self.channels_last = channels_last
        if channels_last:
            self.to(memory_format=torch.channels_last)
        self._announced: set[str] = set()
        self._shuffles: bool | None = None
        self.seed, self.step = 0, 0

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
        preprocessor = cast(Any, self.data_preprocessor)
        if hasattr(preprocessor, 'set_address'):
            preprocessor.set_address(seed, step, rank)

    def momentum_at(self, progress: float) -> float:
        """Return m at a fraction of the training (0 … 1)."""
        return momentum_at(self.m, self.m_schedule, progress)

    def update_key_encoder(self, m: float) -> None:
        """Move the key encoder towards the query encoder (v1, eq. 2)."""
        self.key_encoder.update(self.query_modules(), m)

    def reset_key_encoder(self) -> None:
        """Make the key encoder a copy of the query encoder."""
        self.key_encoder.copy_from(self.query_modules())

    def commit_keys(self) -> None:
        """Write the staged keys: the optimizer step was taken."""
        self.dictionary.commit()

    def discard_keys(self) -> None:
        """Forget the staged keys: the optimizer step was not taken."""
        self.dictionary.discard()

    # ---------------------------------------------------------- encoders

    def query_modules(self) -> Mapping[str, nn.Module]:
        """The modules that the key encoder averages, by name."""
        return {'backbone': self.backbone, 'neck': self.neck}

    def init_weights(self) -> None:
        """Initialise, then let the key encoder start as a copy."""
        super().init_weights()
        self.reset_key_encoder()

    def encode_query(self, x: Tensor) -> Tensor:
        """Return the queries, N×C, L2-normalised."""
        return F.normalize(_only(self.neck(self.backbone(x))).float(), dim=1)

    @torch.no_grad()
    def encode_key(self, x: Tensor) -> Tensor:
        """Return the keys, N×C, L2-normalised, without gradient."""
        plan = self._shuffle_plan(x)
        if plan is not None:
            x = gather(x)[plan.take]
        k = F.normalize(_only(self.key_encoder(x)).float(), dim=1)
        return k if plan is None else unshuffle(k, plan)

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
            return self.encode_query(self._layout(x))
        if stage != 'backbone':
            raise ValueError(
                f"stage={stage!r} is unknown; use 'backbone' or 'neck'."
            )
        feature = _only(self.backbone(self._layout(x)))
        return feature.mean((2, 3)) if feature.dim() == 4 else feature

    # -------------------------------------------------------------- loss

    def forward(
        self,
        inputs: Mapping[str, Tensor] | Tensor,
        ids: Tensor | None = None,
        mode: str = 'tensor',
        **_: Any,
    ) -> Any:
        """Dispatch as OpenMMLab's models do.

        Args:
            inputs: Views by name, each N×C×H×W; or, except for training,
                one tensor.
            ids: N sample ids, −1 where unknown.
            mode: ``'loss'`` for training, ``'tensor'`` for features.
        """
        if mode == 'tensor':
            x = inputs if isinstance(inputs, Tensor) else _only_view(inputs)
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
        return self.loss(views, ids)

    def loss(
        self, inputs: Mapping[str, Tensor], ids: Tensor
    ) -> dict[str, Tensor]:
        """Return the loss and the statistics of the look-up.

        Args:
            inputs: Normalised views by name, each N×C×H×W.
            ids: N sample ids, −1 where unknown.
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

    def _shuffle_plan(self, x: Tensor) -> ShufflePlan | None:
        if self._shuffles is None:
            self._shuffles = self._choose_shuffle()
        if not self._shuffles:
            return None
        return shuffle_plan(len(x), self.seed, self.step, x.device)

    def _choose_shuffle(self) -> bool:
        """Decide from the key encoder's norms and the processes; log it."""
        world = get_world_size()
        norms = [
            layer
            for layer in self.key_encoder.modules()
            if isinstance(layer, nn.modules.batchnorm._BatchNorm)
        ]
        plain = [n for n in norms if not isinstance(n, nn.SyncBatchNorm)]
        # SplitBN; parts are never imported here, only built.
        splits = {getattr(n, 'num_splits', 1) for n in plain} - {1}
        level = logging.INFO
        if not plain:
            shuffles, guard = False, 'none needed, no BatchNorm of its own'
        elif world > 1:
            shuffles, guard = True, f'ShuffleBN over {world} processes'
        elif splits:
            shuffles, guard = True, f'SplitBN in {splits} parts, permuted keys'
        else:
            shuffles, guard = False, _NO_GUARD
            level = logging.WARNING
        print_log(
            f'Guard against the BatchNorm leak: {guard}.',
            logger='current',
            level=level,
        )
        return shuffles

    def _layout(self, x: Tensor) -> Tensor:
        if self.channels_last and x.dim() == 4:
            return x.contiguous(memory_format=torch.channels_last)
        return x


def look_up_log(stats: Stats) -> dict[str, Tensor]:
    """The statistics of a look-up under the names of the log."""
    return {
        'pos_sim': stats.positive_similarity,
        'neg_sim': stats.negative_similarity,
        'top1': stats.top1,
    }


def _only(outputs: Tensor | tuple[Tensor, ...]) -> Tensor:
    """OpenMMLab's backbones and necks return tuples; take the last."""
    return outputs if isinstance(outputs, Tensor) else outputs[-1]


def _only_view(inputs: Mapping[str, Tensor]) -> Tensor:
    if len(inputs) == 1:
        return next(iter(inputs.values()))
    if 'image' in inputs:
        return inputs['image']
    raise ValueError(
        f'Features are taken of one image, but the batch holds '
        f"{sorted(inputs)}: name one of them 'image'."
    )
