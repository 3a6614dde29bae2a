"""The Vision Transformers of MoCo v3 (arXiv 2104.02057)."""

import math
from typing import Any

import torch
from mmcv.cnn import build_norm_layer
from mmpretrain.models.backbones import VisionTransformer
from mmpretrain.models.backbones.vision_transformer import (
    TransformerEncoderLayer,
)
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmmoco.registry import MODELS

from .frozen_projection import freeze_first_conv


def _arch(width: int, depth: int, heads: int) -> dict[str, int]:
    return {
        'embed_dims': width,
        'num_layers': depth,
        'num_heads': heads,
        'feedforward_channels': 4 * width,
    }


#: Name → shape. ViT-S has 12 heads here, not 6; a convolutional stem takes
#: the place of one block.
ARCHS: dict[str, dict[str, Any]] = {
    'small': _arch(384, 12, 12),
    'base': _arch(768, 12, 12),
    'large': _arch(1024, 24, 16),
    'conv-small': {**_arch(384, 11, 12), 'conv_stem': True},
    'conv-base': {**_arch(768, 11, 12), 'conv_stem': True},
}


@MODELS.register_module()
class MoCoV3ViT(VisionTransformer):
    """ViT with fixed positions, a frozen patch projection or a conv stem.

    Its state dict is that of mmpretrain's ``VisionTransformer``: pre-trained
    weights load there directly (``arch`` as a dict, since names of that
    table mean other shapes).

    Args:
        arch: A name of ``ARCHS``, or a dict with ``embed_dims``,
            ``num_layers``, ``num_heads``, ``feedforward_channels`` and,
            optionally, ``conv_stem``.
        img_size: Usual side of the images.
        patch_size: Side of a patch; 16 with a convolutional stem.
        in_channels: Channels of the images.
        frozen_stages: Blocks that stay as they are, from the first on, in
            eval mode; 0 freezes what comes before them (patches, class
            token), all of them also the last norm. -1: none.
        stop_grad_conv1: Freeze the patch projection (of a conv stem: its
            first convolution). If None: a patch projection is frozen, a
            stem is not, as published.
        stem_norm_cfg: Normalisation in the convolutional stem.
        with_cp: Recompute every block in the backward pass instead of
            keeping its activations.
        init_cfg: Initialisation; ``Pretrained`` replaces the published one.
        **kwargs: As for ``mmpretrain.VisionTransformer``.

    Raises:
        ValueError: If arch, patch size or ``frozen_stages`` do not exist or
            fit.
        RuntimeError: If ``stop_grad_conv1`` finds no convolution.
    """

    def __init__(
        self,
        arch: str | dict[str, Any] = 'base',
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        frozen_stages: int = -1,
        stop_grad_conv1: bool | None = None,
        stem_norm_cfg: dict[str, Any] | None = None,
        with_cp: bool = False,
        init_cfg: Any = None,
        **kwargs: Any,
    ) -> None:
        shape = _shape_of(arch)
        conv_stem = shape.pop('conv_stem', False)
        depth = shape.get('num_layers', 0)
        if not -1 <= frozen_stages <= depth:
            raise ValueError(
                f'frozen_stages={frozen_stages} must lie between -1 (none) '
                f'and {depth}, the number of blocks.'
            )
        super().__init__(
            arch=shape,
            img_size=img_size,
            patch_size=patch_size,
            in_channels=in_channels,
            init_cfg=init_cfg,
            **kwargs,
        )
        if conv_stem:
            if patch_size != ConvStem.stride:
                raise ValueError(
                    f'patch_size={patch_size}: a convolutional stem makes '
                    f'patches of {ConvStem.stride} pixels.'
                )
            self.patch_embed = ConvStem(
                in_channels,
                self.embed_dims,
                self.patch_resolution,
                stem_norm_cfg or dict(type='BN'),
            )
        self._fix_positions()
        self.frozen_stages = frozen_stages
        self._keep_frozen()
        if stop_grad_conv1 is None:
            stop_grad_conv1 = not conv_stem
        if stop_grad_conv1:
            freeze_first_conv(self.patch_embed, type(self).__name__)
        if with_cp:
            for layer in self.layers:
                # The class alone differs: names and copies stay as they are.
                layer.__class__ = _CheckpointedLayer

    def train(self, mode: bool = True) -> 'MoCoV3ViT':
        """Switch the mode; what is frozen stays in eval mode."""
        super().train(mode)
        self._keep_frozen()
        return self

    def _keep_frozen(self) -> None:
        if self.frozen_stages >= 0:
            self._freeze_stages()

    @torch.no_grad()
    def _fix_positions(self) -> None:
        self.pos_embed.requires_grad_(False)
        self.pos_embed.zero_()
        extra = self.num_extra_tokens if self.with_cls_token else 0
        height, width = self.patch_resolution
        self.pos_embed[0, extra:] = sincos_positions(
            height, width, self.embed_dims
        )

    def init_weights(self) -> None:
        """Initialise as published, or load what ``init_cfg`` names."""
        super().init_weights()
        init = self.init_cfg
        if isinstance(init, dict) and init.get('type') == 'Pretrained':
            return
        self._fix_positions()
        projection = self.patch_embed.projection
        if isinstance(projection, nn.Conv2d):
            _xavier(projection)
        for name, module in self.layers.named_modules():
            if isinstance(module, nn.Linear):
                # Query, key and value stand in one matrix.
                _xavier(module, 3 if name.endswith('attn.qkv') else 1)
        if self.with_cls_token:
            nn.init.normal_(self.cls_token, std=1e-6)


class ConvStem(nn.Module):
    """Four 3×3 convolutions of stride 2 and one 1×1, in place of patches.

    Early convolutions as in arXiv 2106.14881.

    Args:
        in_channels: Channels of the images.
        embed_dims: Width of the tokens; a multiple of 8.
        out_size: Height and width of the token grid at the usual image size.
        norm_cfg: Normalisation after each 3×3 convolution.
    """

    stride = 16

    def __init__(
        self,
        in_channels: int,
        embed_dims: int,
        out_size: tuple[int, int],
        norm_cfg: dict[str, Any],
    ) -> None:
        super().__init__()
        if embed_dims % 8:
            raise ValueError(
                f'embed_dims={embed_dims}: a convolutional stem begins with '
                'an eighth of it, so it must be a multiple of 8.'
            )
        self.init_out_size = out_size
        widths = [embed_dims // 8 * 2**i for i in range(4)]
        layers: list[nn.Module] = []
        for before, width in zip([in_channels, *widths], widths, strict=False):
            layers += [
                nn.Conv2d(before, width, 3, stride=2, padding=1, bias=False),
                build_norm_layer(norm_cfg, width)[1],
                nn.ReLU(inplace=True),
            ]
        layers.append(nn.Conv2d(widths[-1], embed_dims, kernel_size=1))
        self.projection = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return N×(h·w)×C tokens and (h, w)."""
        x = self.projection(x)
        height, width = x.shape[2:]
        return x.flatten(2).transpose(1, 2), (height, width)


class _CheckpointedLayer(TransformerEncoderLayer):
    """A transformer block whose activations are computed again."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return super().forward(x)
        result: Tensor = checkpoint(super().forward, x, use_reentrant=False)
        return result


def sincos_positions(height: int, width: int, dims: int) -> Tensor:
    """Return fixed 2-D position embeddings, (height·width)×dims.

    A quarter of the channels each: sine and cosine of the first grid
    coordinate, sine and cosine of the second, over a geometric row of
    wavelengths up to 10000. The grid runs through the columns in its outer
    loop, as in the authors' models.

    Args:
        height: Rows of patches.
        width: Columns of patches.
        dims: Channels, a multiple of 4.

    Raises:
        ValueError: If ``dims`` is no multiple of 4.
    """
    if dims % 4:
        raise ValueError(
            f'embed_dims={dims}: 2-D positions need a multiple of 4.'
        )
    steps = torch.arange(dims // 4, dtype=torch.float32) / (dims // 4)
    frequencies = 10000.0**-steps
    outer, inner = torch.meshgrid(
        torch.arange(width, dtype=torch.float32),
        torch.arange(height, dtype=torch.float32),
        indexing='ij',
    )
    a = outer.reshape(-1, 1) * frequencies
    b = inner.reshape(-1, 1) * frequencies
    return torch.cat([a.sin(), a.cos(), b.sin(), b.cos()], dim=1)


def _shape_of(arch: str | dict[str, Any]) -> dict[str, Any]:
    if not isinstance(arch, str):
        return dict(arch)
    if arch not in ARCHS:
        raise ValueError(
            f'arch={arch!r} is unknown; use one of {", ".join(ARCHS)}, or a '
            'dict of embed_dims, num_layers, num_heads and '
            'feedforward_channels.'
        )
    return dict(ARCHS[arch])


def _xavier(layer: nn.Conv2d | nn.Linear, matrices: int = 1) -> None:
    """Draw weights uniformly, for the fans of each matrix; no bias."""
    fan_in, fan_out = layer.weight[0].numel(), len(layer.weight) // matrices
    bound = math.sqrt(6.0 / (fan_in + fan_out))
    nn.init.uniform_(layer.weight, -bound, bound)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
