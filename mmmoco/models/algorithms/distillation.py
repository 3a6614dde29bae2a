from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmmoco.functional import (
    check_distance,
    check_weights,
    feature_distance,
    feature_similarity,
)
from mmmoco.messages import log_warning
from mmmoco.registry import MODELS
from mmmoco.two_phase import TwoPhaseModel

from .tokens import Tokens, resized, split_tokens


@MODELS.register_module()
class Distillation(TwoPhaseModel):
    """A student learns the features of a frozen teacher, without labels.

    Both are vision transformers and see the same view. The teacher's copy of
    it is resized so that both cut it into the same grid: a student with
    patches of 16 that sees 96 pixels, and a teacher with patches of 14, which
    then sees 84, have 6×6 patches each. Position embeddings are interpolated
    to the grid. The student's class token learns the teacher's class token,
    its patch tokens the patch tokens at the same place; where the widths
    differ, a linear adapter stands between.

    There is no key encoder and no dictionary: the hooks that update them
    have nothing to do here.

    Args:
        backbone: Config of the student, a vision transformer.
        teacher: Config of the teacher; ``init_cfg=dict(type='Pretrained',
            checkpoint=file or URL, prefix='backbone.')`` names its weights.
            A file that lacks one of them is refused.
        cls_weight: Weight of the class token's loss.
        patch_weight: Weight of the patch tokens' loss.
        cls_distance: ``'cosine'`` or ``'smooth_l1'``.
        patch_distance: ``'cosine'`` or ``'smooth_l1'``.
        teacher_mean: What the teacher's pixels are normalised by, per
            channel, in grey levels 0 … 255; as the student's if None.
        teacher_std: What they are divided by, per channel; as the student's if
            None.
        **kwargs: As for :class:`TwoPhaseModel`.
    """

    factor: Tensor | None
    offset: Tensor | None

    def __init__(
        self,
        backbone: dict[str, Any],
        teacher: dict[str, Any],
        cls_weight: float = 1.0,
        patch_weight: float = 1.0,
        cls_distance: str = 'cosine',
        patch_distance: str = 'cosine',
        teacher_mean: Sequence[float] | None = None,
        teacher_std: Sequence[float] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_weights(cls_weight, patch_weight)
        check_distance(cls_distance)
        check_distance(patch_distance)
        self.weights = cls_weight, patch_weight
        self.distances = cls_distance, patch_distance
        self.patch_size = int(backbone.get('patch_size', 16))
        self.teacher_patch_size = int(teacher.get('patch_size', 16))
        self.backbone = MODELS.build({'out_type': 'raw', **backbone})
        self.teacher = MODELS.build({'out_type': 'raw', **teacher})
        self.teacher.requires_grad_(False)
        self.teacher.eval()
        width, goal = self.backbone.embed_dims, self.teacher.embed_dims
        self.adapter: nn.Module = nn.Identity()
        if width != goal:
            self.adapter = nn.Linear(width, goal)
        self._rescale(teacher_mean, teacher_std)
        if self.channels_last:
            self.to(memory_format=torch.channels_last)

    def _rescale(
        self, mean: Sequence[float] | None, std: Sequence[float] | None
    ) -> None:
        """Keep factor and offset from the student's pixels to the teacher's.

        Raises:
            ValueError: If only one of the two is given, or there is no
                preprocessor that tells the student's.
        """
        self.register_buffer('factor', None, persistent=False)
        self.register_buffer('offset', None, persistent=False)
        if mean is None and std is None:
            return
        own = cast(Any, self.data_preprocessor)
        if mean is None or std is None or not hasattr(own, 'mean'):
            raise ValueError(
                'teacher_mean and teacher_std go together, and beside a '
                "data_preprocessor with the student's mean and std."
            )
        shape = (1, -1, 1, 1)
        goal_std = torch.tensor(std).view(shape)
        goal_mean = torch.tensor(mean).view(shape)
        self.factor = own.std / goal_std
        self.offset = (own.mean - goal_mean) / goal_std

    # ------------------------------------------------- teacher and student

    def train(self, mode: bool = True) -> 'Distillation':
        """Switch the student; the teacher stays in eval mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def init_weights(self) -> None:
        """Initialise; say if the teacher has no file."""
        if (self.teacher.init_cfg or {}).get('type') != 'Pretrained':
            log_warning(
                'The teacher has random weights: nothing is learnt from it. '
                "Name its file in model.teacher.init_cfg=dict(type='"
                "Pretrained', checkpoint=…)."
            )
        super().init_weights()

    def teacher_view(self, x: Tensor) -> Tensor:
        """Return the images as the teacher needs them.

        Args:
            x: N×C×H×W, as the student sees them.

        Raises:
            ValueError: If no side of the teacher's gives the student's grid.
        """
        own, goal = self.patch_size, self.teacher_patch_size
        height, width = x.shape[-2:]
        if height % own or width % own:
            raise ValueError(
                f"The student's images are {height}×{width}, no multiple of "
                f'its patch size {own}: its grid would differ from that of '
                f'the teacher, whose patches are {goal}. Choose sides that '
                f'are multiples of {own}.'
            )
        size = [height // own * goal, width // own * goal]
        if self.factor is not None and self.offset is not None:
            x = x * self.factor + self.offset
        return resized(x, size)

    def student_tokens(self, x: Tensor) -> Tokens:
        """Return the student's tokens, in its own width."""
        return split_tokens(self.backbone(x), x, self.patch_size, 'backbone')

    @torch.no_grad()
    def teacher_tokens(self, x: Tensor) -> Tokens:
        """Return the teacher's tokens of images as the student sees them."""
        x = self.teacher_view(x)
        return split_tokens(
            self.teacher(x), x, self.teacher_patch_size, 'teacher'
        )

    def encoders(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """The student's class token, as it is and in the teacher's width.

        The teacher's class token is there to compare with.
        """

        def adapted(x: Tensor) -> Tensor:
            token = self.adapter(self.student_tokens(x).cls)
            return F.normalize(token.float(), dim=1)

        return {
            'backbone': lambda x: self.student_tokens(x).cls,
            'neck': adapted,
            'teacher': lambda x: self.teacher_tokens(x).cls,
        }

    # -------------------------------------------------------------- loss

    def loss(
        self, inputs: Mapping[str, Tensor], ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Return the losses of class and patch tokens, the mean over views.

        Args:
            inputs: Normalised views by name, each N×C×H×W.
            ids: N sample ids, not used.
        """
        log: dict[str, Tensor] = {}
        for x in inputs.values():
            goal = self.teacher_tokens(x)
            for name, value in self._compare(x, goal).items():
                log[name] = log.get(name, 0.0) + value / len(inputs)
        return log

    def _compare(self, x: Tensor, goal: Tokens) -> dict[str, Tensor]:
        result: dict[str, Tensor] = {}
        for name, token, target, weight, kind in zip(
            Tokens._fields,
            self.student_tokens(x),
            goal,
            self.weights,
            self.distances,
            strict=True,
        ):
            token = self.adapter(token)
            if name == 'cls':
                self.queries = token.detach()
            if weight:
                distance = feature_distance(token, target, kind)
                result[f'loss_{name}'] = weight * distance
            result[f'sim_{name}'] = feature_similarity(token, target)
        return result
