"""The small convolutional net of the demo."""

from collections.abc import Sequence
from typing import Any

from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmmoco.private_names import BatchNorm
from mmmoco.registry import MODELS


@MODELS.register_module()
class PlainConvNet(BaseModule):
    """A row of 3×3 convolutions with normalisation and ReLU.

    Small enough to train in minutes on a CPU, and with the arguments of a
    larger backbone, so that detectors and segmentors take it too.

    Args:
        in_channels: Channels of the images.
        channels: Output channels of each stage.
        strides: Stride of each stage, one for each of ``channels``.
        out_indices: Stages whose feature maps are returned.
        frozen_stages: Last stage that stays as it is: 0 freezes the first
            stage, -1 none.
        norm_cfg: Config of the normalisation layers; BatchNorm if None.
        norm_eval: Keep BatchNorm in eval mode, its statistics fixed.
        init_cfg: Initialisation, for example ``dict(type='Pretrained',
            checkpoint=…, prefix='backbone.')``.

    Raises:
        ValueError: If the arguments do not fit each other.
    """

    def __init__(
        self,
        in_channels: int = 3,
        channels: Sequence[int] = (16, 32, 64, 128),
        strides: Sequence[int] = (1, 2, 2, 2),
        out_indices: Sequence[int] = (3,),
        frozen_stages: int = -1,
        norm_cfg: dict[str, Any] | None = None,
        norm_eval: bool = False,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        last = len(channels) - 1
        if last < 0 or len(strides) != len(channels):
            raise ValueError(
                f'{len(channels)} channels but {len(strides)} strides; give '
                'one of each for every stage.'
            )
        if not out_indices or not all(0 <= i <= last for i in out_indices):
            raise ValueError(
                f'out_indices={tuple(out_indices)} must name stages from 0 '
                f'to {last}.'
            )
        if not -1 <= frozen_stages <= last:
            raise ValueError(
                f'frozen_stages={frozen_stages} must lie between -1 (none) '
                f'and {last} (all).'
            )
        self.num_stages = len(channels)
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        self.stages = nn.ModuleList(
            ConvModule(
                in_width,
                width,
                kernel_size=3,
                stride=stride,
                padding=1,
                norm_cfg=norm_cfg or dict(type='BN'),
            )
            for in_width, width, stride in zip(
                (in_channels, *channels), channels, strides, strict=False
            )
        )
        # Here and not in init_weights(): the distributed wrapper, made
        # before that, must not expect gradients from frozen parameters.
        self._frozen().requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the feature maps of the stages in ``out_indices``.

        Args:
            x: N×in_channels×H×W images.
        """
        maps = []
        for index, stage in enumerate(self.stages):
            x = stage(x)
            if index in self.out_indices:
                maps.append(x)
        return tuple(maps)

    def train(self, mode: bool = True) -> 'PlainConvNet':
        """Switch the mode; what is frozen stays in eval mode."""
        super().train(mode)
        self._frozen().eval()
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, BatchNorm):
                    module.eval()
        return self

    def _frozen(self) -> nn.ModuleList:
        return self.stages[: self.frozen_stages + 1]
