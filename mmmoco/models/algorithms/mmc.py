from collections.abc import Callable, Mapping
from typing import Any, ClassVar, cast

import torch
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from mmmoco.functional import ShufflePlan
from mmmoco.registry import MODELS
from mmmoco.two_phase import Dictionary

from ..encoders import check_channels, fit_heads
from .momentum_contrast import MomentumContrast, mean_stats
from .tokens import Tokens, split_tokens

LOSSES = ('rec', 'pat', 'cls')


@MODELS.register_module()
class MMC(MomentumContrast):
    """Masked momentum contrast (arXiv 2308.11448): three losses, one teacher.

    The student sees corrupted views, the teacher, its moving average, clean
    ones. L_REC: the student restores the corrupted pixels. L_PAT: its patch
    tokens learn the teacher's at the same place. L_CLS: its class token finds
    the teacher's of another view of the image among the global batch. Each
    has a head of its own; a weight of 0 leaves loss and head out.

    Local crops pass the student only, uncorrupted, for L_CLS.

    The paper's abstract and a digest of it were to hand, not its equations.
    What they leave open follows the same lab's GMML and SiT, and MoCo v3:
    the two terms of L_CLS are added, each times 2τ, without a predictor (SiT,
    MoCo v3); with local crops it is twice the mean over all pairs of a
    student's and a teacher's view. L_REC and L_PAT are means over the
    corrupted views.

    `MMC <https://arxiv.org/abs/2308.11448>`_,
    `SiT <https://arxiv.org/abs/2104.03602>`_.

    Args:
        backbone: Config of the student, a vision transformer with class
            token.
        heads: Configs of ``rec``, ``pat`` and ``cls``; one whose weight is 0
            may be left out.
        rec_weight: Weight of L_REC.
        pat_weight: Weight of L_PAT.
        cls_weight: Weight of L_CLS.
        loss: Config of the contrastive loss of L_CLS.
        m: λ of the teacher at the start.
        m_schedule: ``'cosine'`` (from m to 1) or ``'constant'``.
        **kwargs: As for :class:`MomentumContrast`.

    Raises:
        ValueError: If the weights, or heads and weights, do not fit.
    """

    key_encoder_name: ClassVar[str] = 'teacher'

    dictionary: Dictionary

    def __init__(
        self,
        *,
        backbone: dict[str, Any],
        heads: dict[str, dict[str, Any]],
        rec_weight: float = 1.0,
        pat_weight: float = 1.0,
        cls_weight: float = 1.0,
        loss: dict[str, Any] | None = None,
        m: float = 0.996,
        m_schedule: str = 'cosine',
        **kwargs: Any,
    ) -> None:
        weights = dict(rec=rec_weight, pat=pat_weight, cls=cls_weight)
        if min(weights.values()) < 0 or not any(weights.values()):
            raise ValueError(
                f'rec_weight={rec_weight}, pat_weight={pat_weight} and '
                f'cls_weight={cls_weight} must not be negative, and not all '
                'zero.'
            )
        used = [name for name in LOSSES if weights[name]]
        if not set(used) <= set(heads) <= set(LOSSES):
            raise ValueError(
                f'heads has {sorted(heads)}; MMC needs {used}, and knows no '
                f'others than {list(LOSSES)}.'
            )
        super().__init__(
            backbone={'out_type': 'raw', **backbone},
            neck={name: heads[name] for name in used},
            dictionary=dict(type='InBatch'),
            loss=loss
            or dict(type='InfoNCE', temperature=0.2, scale_by_2tau=True),
            m=m,
            m_schedule=m_schedule,
            **kwargs,
        )
        self.patch_size = int(backbone.get('patch_size', 16))
        self.weights = weights
        # Stochastic depth is the student's alone (SiT).
        for module in self.teacher.modules():
            if isinstance(module, DropPath | nn.Dropout):
                module.eval()

    # ---------------------------------------------------------- encoders

    def build_query_encoder(
        self, backbone: dict[str, Any], neck: dict[str, Any]
    ) -> None:
        """Build the student and the heads of the losses that count."""
        self.backbone = MODELS.build(backbone)
        check_channels(self.backbone, backbone, self.data_preprocessor)
        heads = fit_heads(neck, int(cast(Any, self.backbone).embed_dims))
        self.heads = nn.ModuleDict(
            {name: MODELS.build(head) for name, head in heads.items()}
        )

    def query_modules(self) -> Mapping[str, nn.Module]:
        """The modules that the teacher averages, by name."""
        heads = {
            name: head for name, head in self.heads.items() if name != 'rec'
        }
        if not heads:
            return {'backbone': self.backbone}
        return {'backbone': self.backbone, 'heads': nn.ModuleDict(heads)}

    def student_tokens(self, x: Tensor) -> Tokens:
        """Return the student's tokens of images N×C×H×W."""
        return split_tokens(self.backbone(x), x, self.patch_size, 'backbone')

    @torch.no_grad()
    def teacher_tokens(self, x: Tensor) -> Tokens:
        """Return the teacher's tokens of images N×C×H×W."""
        outputs = self.teacher.backbone(x)
        return split_tokens(outputs, x, self.patch_size, 'backbone')

    def project(self, x: Tensor) -> Tensor:
        """Return the student's projection of the class token, N×C.

        Raises:
            ValueError: If the model was built without that head.
        """
        if 'cls' not in self.heads:
            raise ValueError(
                'The class token has no projection: cls_weight is 0.'
            )
        result: Tensor = self.heads['cls'](self.student_tokens(x).cls)
        return result

    def encoders(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """The student's class token, its projection, the teacher's token."""
        return {
            'backbone': lambda x: self.student_tokens(x).cls,
            'neck': self.project,
            'teacher': lambda x: self.teacher_tokens(x).cls,
        }

    @torch.no_grad()
    def encode_key(self, x: Tensor, plan: ShufflePlan | None = None) -> Tensor:
        """Return the teacher's projection of the class token, N×C."""
        return self.teacher_head('cls', self.teacher_tokens(x).cls)

    @torch.no_grad()
    def teacher_head(self, name: str, tokens: Tensor) -> Tensor:
        """Return what a head of the teacher makes of tokens."""
        result: Tensor = self.teacher.heads[name](tokens)
        return result

    # -------------------------------------------------------------- loss

    def loss(
        self,
        inputs: Mapping[str, Tensor],
        ids: Tensor,
        **groups: Tensor,
    ) -> dict[str, Tensor]:
        """Return the losses, each times its weight.

        Args:
            inputs: Global views (``view_1`` …), for each of them
                ``view_1_corrupted`` and ``view_1_mask``, and any number of
                local views; N×C×H×W, masks N×1×H×W.
            ids: N sample ids, −1 where unknown.
            **groups: ``groups``, N numbers, if the dictionary wants them.

        Raises:
            ValueError: If the views do not suffice.
        """
        names = self._global_views(inputs)
        clean = [inputs[name] for name in names]
        masks = [inputs[f'{name}_mask'] for name in names]
        # The teacher first: it keeps no activations.
        teacher = []
        if set(self.heads) != {'rec'}:
            teacher = self._each(self.teacher_tokens, clean)
        student = self._each(
            self.student_tokens,
            [inputs[f'{name}_corrupted'] for name in names],
        )
        log: dict[str, Tensor] = {}
        if 'rec' in self.heads:
            head = cast(Any, self.heads['rec'])
            losses = [
                head.loss(tokens.patches, x, mask)
                for tokens, x, mask in zip(student, clean, masks, strict=True)
            ]
            log['loss_rec'] = self.weights['rec'] * _mean(losses)
        if 'pat' in self.heads:
            log |= self._patch_loss(student, teacher, masks)
        if 'cls' in self.heads:
            local = [
                x
                for name, x in inputs.items()
                if name not in names
                and not name.endswith(('_corrupted', '_mask'))
            ]
            student += self._each(self.student_tokens, local)
            log |= self._cls_loss(student, teacher, ids, **groups)
        return log

    def _global_views(self, inputs: Mapping[str, Tensor]) -> list[str]:
        names = [name for name in inputs if f'{name}_corrupted' in inputs]
        needed = 2 if 'cls' in self.heads else 1
        if len(names) < needed:
            raise ValueError(
                f'MMC needs {needed} views with corrupted copies, but the '
                f'batch holds {sorted(inputs)}: use data_preprocessor=dict('
                "type='MaskedViewAugmentor', corrupted_views=['view_1', "
                "'view_2'], …)."
            )
        return names

    def _patch_loss(
        self, student: list[Tokens], teacher: list[Tokens], masks: list[Tensor]
    ) -> dict[str, Tensor]:
        head = cast(Any, self.heads['pat'])
        terms = []
        for own, goal, mask in zip(student, teacher, masks, strict=True):
            target = self.teacher_head('pat', goal.patches)
            terms.append(head.loss(head(own.patches), target, mask))
        log = {
            'loss_pat': self.weights['pat'] * _mean([t['loss'] for t in terms])
        }
        if 'top1' in terms[0]:
            log['pat_top1'] = _mean([t['top1'] for t in terms])
        return log

    def _cls_loss(
        self,
        student: list[Tokens],
        teacher: list[Tokens],
        ids: Tensor,
        **groups: Tensor,
    ) -> dict[str, Tensor]:
        """Look up every student's view among the teacher's other views."""
        queries = [self.heads['cls'](tokens.cls) for tokens in student]
        keys = [self.teacher_head('cls', tokens.cls) for tokens in teacher]
        candidates = [self.dictionary.lookup(k, ids, **groups) for k in keys]
        results = [
            self.contrast(q, candidates[j])
            for i, q in enumerate(queries)
            for j in range(len(keys))
            if i != j
        ]
        losses, stats = zip(*results, strict=True)
        # Two global views: loss(1, 2) + loss(2, 1).
        log = {'loss_cls': 2.0 * self.weights['cls'] * _mean(list(losses))}
        if self.dictionary.exclude:
            log |= candidates[0].excluded()
        return log | mean_stats(stats)

    @staticmethod
    def _each(encode: Any, views: list[Tensor]) -> list[Tokens]:
        """Encode views, those of equal size in one pass.

        The transformer treats every image by itself; the heads, which may
        hold a BatchNorm, still see each view as a batch of its own.
        """
        result: dict[int, Tokens] = {}
        for size in dict.fromkeys(x.shape[-2:] for x in views):
            places = [i for i, x in enumerate(views) if x.shape[-2:] == size]
            tokens = encode(torch.cat([views[i] for i in places]))
            parts = zip(*(x.chunk(len(places)) for x in tokens), strict=True)
            for i, part in zip(places, parts, strict=True):
                result[i] = Tokens(*part)
        return [result[i] for i in range(len(views))]


def _mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).mean()
