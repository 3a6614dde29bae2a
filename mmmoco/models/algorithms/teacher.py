"""A frozen network that others learn from, with what it needs of images."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor

from mmmoco.functional import first_not_finite
from mmmoco.messages import log_warning
from mmmoco.models.encoders import image_channels
from mmmoco.registry import MODELS, bare_type

from .tokens import (
    Stage,
    build_for_tokens,
    patch_side,
    resized,
    stages_of,
)


@MODELS.register_module()
class Teacher(BaseModule):
    """A frozen network, in eval mode, that sees images in its own way.

    What the config leaves out is asked of the file of its weights, or of
    timm where ``pretrained=True`` has it load them.

    Args:
        backbone: Config of the network, of any library;
            ``init_cfg=dict(type='Pretrained', checkpoint=file,
            prefix='backbone.')`` names its weights.
        mean: What its pixels are normalised by, per channel, in grey levels
            0 … 255.
        std: What they are divided by, per channel.
        size: Side of its images, or height and width; None: that of the
            student's, to the nearest multiple of its patches.
        license: Under which its weights are, an identifier such as
            ``'apache-2.0'``. It is written into every checkpoint and card of
            the student.
        random: Have no weights, on purpose.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: dict[str, Any],
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        size: int | Sequence[int] | None = None,
        license: str | None = None,
        random: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = build_for_tokens(backbone)
        self.requires_grad_(False)
        self.train()
        if not isinstance(license, str | None):
            raise ValueError(
                f'model.teacher.license={license!r}: give one text, such as '
                "'apache-2.0'."
            )
        self.random, self.license = random, license
        model: Any = getattr(self.backbone, 'timm_model', None)
        patches = getattr(model, 'patch_embed', None)
        if size is None and getattr(patches, 'strict_img_size', False):
            size = backbone.get('img_size')  # It takes no other.
        self.size = _sides(size)
        self.network = str(backbone.get('model_name') or bare_type(backbone))
        self.downloaded = bool(backbone.get('pretrained'))
        channels = image_channels(self.backbone) or 3
        for name in ('mean', 'std'):  # In the state: a file told them once.
            self.register_buffer(name, torch.ones(1, channels, 1, 1))
        self.told = False
        self.adopt(mean, std)
        if self.downloaded and model is not None:
            given = model.pretrained_cfg
            mean, std = ([255 * x for x in given[n]] for n in ('mean', 'std'))
            self.adopt(mean, std, given.get('license'))

    @property
    def levels(self) -> tuple[Tensor, Tensor]:
        """Mean and std."""
        return self.mean, self.std

    @property
    def file(self) -> str | None:
        """Of its weights."""
        given = getattr(self.backbone, 'init_cfg', None) or []
        for init in given if isinstance(given, list) else [given]:
            if init.get('type') == 'Pretrained':
                return str(init['checkpoint'])
        return None

    def adopt(
        self,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        license: str | None = None,
    ) -> None:
        """Take what is not known yet.

        Args:
            mean: Of the pixels, in grey levels; None: unknown.
            std: The same.
            license: Of the weights.

        Raises:
            ValueError: If they are not one value per channel each, by which
                pixels can be normalised.
        """
        self.license = self.license or license
        if self.told or (mean is None and std is None):
            return
        channels = self.mean.numel()
        for values, least in ((mean, -math.inf), (std, 0.0)):
            if (
                not isinstance(values, list | tuple)
                or len(values) != channels
                or not all(
                    isinstance(x, int | float) and least < x < math.inf
                    for x in values
                )
            ):
                raise ValueError(
                    f'model.teacher ({self.network}) takes images of '
                    f'{channels} channel(s), but has mean={mean} and std='
                    f'{std}: give one value per channel each, finite ones, '
                    'and every std above 0.'
                )
        for name, values in (('mean', mean), ('std', std)):
            buffer: Tensor = getattr(self, name)
            buffer.copy_(torch.tensor(values).view(buffer.shape))
        self.told = True

    def train(self, mode: bool = True) -> 'Teacher':
        """Stay in eval mode, whatever the model around does."""
        return super().train(False)

    def init_weights(self) -> None:
        """Load the weights.

        Raises:
            ValueError: If there are none to load, they are not finite, or
                nothing tells how its images are normalised.
        """
        place = f'model.teacher ({self.network})'
        if self.random:
            log_warning(
                f'{place} has random weights (random=True): nothing is to be '
                'learnt from it.'
            )
        elif not (self.file or self.downloaded):
            raise ValueError(
                f'{place} has random weights: nothing is to be learnt from '
                'it. Name its file, model.teacher.backbone.init_cfg=dict(type'
                "='Pretrained', checkpoint=…, prefix='backbone.'), or set "
                'model.teacher.random=True.'
            )
        if not self.told:
            raise ValueError(
                f'{place}: neither the config nor {self.file or "timm"} tells '
                'how its images are normalised. Give model.teacher.mean and '
                'std, in grey levels 0 … 255; ImageNet: (123.675, 116.28, '
                '103.53) and (58.395, 57.12, 57.375).'
            )
        super().init_weights()
        name = first_not_finite(self.backbone.state_dict())
        if name is not None:
            raise ValueError(
                f'{place}: {name} of {self.file or "its weights"} holds '
                'values that are not finite: nothing is to be learnt from it. '
                'Fetch the file again.'
            )

    @torch.no_grad()
    def forward(self, x: Tensor, mean: Tensor, std: Tensor) -> list[Stage]:
        """Return its features of images of the student, stage by stage.

        Args:
            x: N×C×H×W, normalised as the student's.
            mean: By which they are, 1×C×1×1.
            std: The same.
        """
        height, width = x.shape[-2:]
        size = self.size
        if size is None:
            side = patch_side(self.backbone)
            size = [max(1, round(n / side)) * side for n in (height, width)]
        x = x * (std / self.std) + (mean - self.mean) / self.std
        stages = stages_of(self.backbone, resized(x, size), 'teacher')
        model: Any = getattr(self.backbone, 'timm_model', None)
        norm: Any = getattr(getattr(model, 'head', None), 'norm', None)
        if type(norm).__name__ != 'LayerNorm2d':
            return stages
        # A ConvNeXt's classifier, which is not here, holds the last norm.
        return [
            Stage(norm(cls[..., None, None]).flatten(1), norm(patches))
            for cls, patches in stages
        ]


def _sides(size: int | Sequence[int] | None) -> list[int] | None:
    """Return height and width.

    Raises:
        ValueError: If it is something else.
    """
    if size is None:
        return None
    both = [size, size] if isinstance(size, int) else [*size]
    if len(both) != 2 or not all(isinstance(x, int) and x > 0 for x in both):
        raise ValueError(
            f'model.teacher.size={size!r}: give a side, or height and width.'
        )
    return both
