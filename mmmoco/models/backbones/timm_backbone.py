from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor

from mmmoco.messages import library
from mmmoco.registry import MODELS

_OF_MAPS = None, 'featmap', 'avg_featmap'
_OF_TOKENS = *_OF_MAPS, 'cls_token', 'raw'


@MODELS.register_module()
class TimmBackbone(BaseModule):
    """A model of timm by its name, with what the methods here expect of one.

    A convolutional network gives its last map, N×C×H×W; any other gives the
    vector N×C that its own classifier would get (the class token, or a
    mean), as timm defines it for each. Other things can be asked for by
    ``out_type``. Register tokens are in none of them.

    Args:
        model_name: As for ``timm.create_model``.
        in_channels: Channels of the images.
        pretrained: Load timm's weights, which are downloaded.
        img_size: Side of the images; only transformers need it, and timm's
            own size is used if it is None.
        out_type: ``'cls_token'``, N×C; ``'raw'``: class token and patch
            tokens, N×(1 + h·w)×C; ``'featmap'``: N×C×h×w, of patch tokens
            too; ``'avg_featmap'``: its mean, N×C; None: as said above.
        init_cfg: Initialisation, as everywhere in OpenMMLab.
        **kwargs: As for ``timm.create_model``.

    Attributes:
        embed_dims: Width of the features.
        patch_size: Side of a transformer's patch; 1 for other networks.
    """

    def __init__(
        self,
        model_name: str,
        in_channels: int = 3,
        pretrained: bool = False,
        img_size: int | None = None,
        out_type: str | None = None,
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
        if 'out_indices' in kwargs:  # Timm would ignore it.
            raise ValueError(
                f'{model_name}: TimmBackbone gives its last stage only; leave '
                'out_indices out, or take a network of mmpretrain.'
            )
        if img_size is not None:
            kwargs['img_size'] = img_size
        model = timm.create_model(
            model_name,
            pretrained=pretrained,
            in_chans=in_channels,
            num_classes=0,
            **kwargs,
        )
        self.timm_model = model
        self.embed_dims = int(model.num_features)
        by_token = hasattr(model, 'num_prefix_tokens')
        patches = getattr(model, 'patch_embed', None)
        size = getattr(patches, 'patch_size', (1,)) if by_token else (1,)
        self.patch_size = int(size[0])
        known: tuple[str | None, ...] = _OF_TOKENS
        if getattr(model, 'cls_token', None) is None:
            known = _OF_MAPS
        if out_type not in known:
            raise ValueError(
                f'out_type={out_type!r}: {model_name} can give '
                f'{", ".join(map(str, known))}.'
            )
        self.out_type = out_type

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return one map N×C×H×W, one vector N×C, or tokens N×T×C."""
        features: Tensor = self.timm_model.forward_features(x)
        order = str(getattr(self.timm_model, 'output_fmt', 'NCHW'))
        if self.out_type is not None:
            return (self._asked(features, x, order.endswith('NHWC')),)
        if features.dim() == 4 and not order.endswith('NHWC'):
            return (features,)
        pooled: Tensor = self.timm_model.forward_head(
            features, pre_logits=True
        )
        return (torch.flatten(pooled, 1),)

    def _asked(self, features: Tensor, x: Tensor, nhwc: bool) -> Tensor:
        """Return what ``out_type`` names."""
        if features.dim() == 3:
            if self.out_type == 'cls_token':
                return features[:, 0]
            # Between class token and patches stand the registers.
            patches = features[:, self.timm_model.num_prefix_tokens :]
            if self.out_type == 'raw':
                return torch.cat([features[:, :1], patches], 1)
            grid = [side // self.patch_size for side in x.shape[2:]]
            features = patches.transpose(1, 2).unflatten(2, grid)
        elif nhwc:
            features = features.permute(0, 3, 1, 2)
        if self.out_type == 'avg_featmap':
            features = features.mean((2, 3))
        return features
