from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from mmmoco.feature_model import FeatureModel
from mmmoco.registry import MODELS

from .momentum_contrast import last_output


@MODELS.register_module()
class BackboneOnly(FeatureModel):
    """A backbone with its preprocessing, for features; nothing is trained.

    Args:
        backbone: Config of the backbone, ``type`` with its scope.
        **kwargs: As for :class:`FeatureModel`.
    """

    def __init__(self, backbone: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.backbone = MODELS.build(backbone)

    def encoders(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """The last output, averaged over all pixels, or the class token."""
        return {'backbone': lambda x: pooled(self.backbone(x))}


def pooled(outputs: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Return one vector for each image, N×C, of what a backbone gives."""
    feature = last_output(outputs)
    return feature.mean((2, 3)) if feature.dim() == 4 else feature
