from typing import Any

from mmpretrain.models.backbones import ResNet

from mmmoco.registry import MODELS

from .frozen_projection import freeze_first_conv


@MODELS.register_module()
class MoCoV3ResNet(ResNet):
    """mmpretrain's ResNet, whose first convolution can be frozen.

    Args:
        depth: As for ``mmpretrain.ResNet``.
        stop_grad_conv1: Freeze the first convolution; not done in the
            published recipes of ResNet.
        **kwargs: As for ``mmpretrain.ResNet``.

    Raises:
        RuntimeError: If ``stop_grad_conv1`` finds no convolution.
    """

    def __init__(
        self, depth: int, stop_grad_conv1: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(depth, **kwargs)
        if stop_grad_conv1:
            freeze_first_conv(self, type(self).__name__)
