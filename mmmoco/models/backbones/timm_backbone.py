from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor

from mmmoco.messages import library
from mmmoco.registry import MODELS


@MODELS.register_module()
class TimmBackbone(BaseModule):
    """A model of timm by its name, with what the methods here expect of one.

    A convolutional network gives its last map, N×C×H×W; any other gives the
    vector N×C that its own classifier would get (the class token, or a
    mean), as timm defines it for each.

    Args:
        model_name: As for ``timm.create_model``.
        in_channels: Channels of the images.
        pretrained: Load timm's weights, which are downloaded.
        img_size: Side of the images; only transformers need it, and timm's
            own size is used if it is None.
        init_cfg: Initialisation, as everywhere in OpenMMLab.
        **kwargs: As for ``timm.create_model``.
    """

    def __init__(
        self,
        model_name: str,
        in_channels: int = 3,
        pretrained: bool = False,
        img_size: int | None = None,
        init_cfg: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(init_cfg)
        timm = library('timm', 'TimmBackbone')
        if not timm.is_model(model_name):
            near = timm.list_models(f'*{model_name.split("_")[0]}*')[:3]
            raise ValueError(
                f'timm has no model_name={model_name!r}; it has for example '
                f'{", ".join(near or timm.list_models("resnet*")[:3])}.'
            )
        if img_size is not None:
            kwargs['img_size'] = img_size
        self.timm_model = timm.create_model(
            model_name,
            pretrained=pretrained,
            in_chans=in_channels,
            num_classes=0,
            **kwargs,
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return one map N×C×H×W, or one vector N×C."""
        features = self.timm_model.forward_features(x)
        order = str(getattr(self.timm_model, 'output_fmt', 'NCHW'))
        if features.dim() == 4 and not order.endswith('NHWC'):
            return (features,)
        pooled: Tensor = self.timm_model.forward_head(
            features, pre_logits=True
        )
        return (torch.flatten(pooled, 1),)
