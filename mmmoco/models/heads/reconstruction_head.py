from mmengine.model import BaseModule
from torch import Tensor, nn

from mmmoco.functional import masked_l1
from mmmoco.registry import MODELS


@MODELS.register_module()
class ReconstructionHead(BaseModule):
    """From patch tokens back to pixels (MMC, L_REC).

    The decoder of SiT and GMML, the same lab's earlier methods: three linear
    layers with GELU, then a transposed convolution of a patch; the last
    block's tokens come in. L1 on the corrupted pixels against the clean
    normalised image.

    `GMML <https://arxiv.org/abs/2205.14986>`_,
    `SiT <https://arxiv.org/abs/2104.03602>`_.

    Args:
        in_channels: Width of the tokens.
        patch_size: Side of a patch in pixels.
        channels: Channels of the images.
        num_layers: Linear layers before the transposed convolution.
    """

    def __init__(
        self,
        in_channels: int,
        patch_size: int = 16,
        channels: int = 3,
        num_layers: int = 3,
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        layers: list[nn.Module] = []
        for _ in range(num_layers):
            layers += [nn.Linear(in_channels, in_channels), nn.GELU()]
        self.mlp = nn.Sequential(*layers)
        self.to_pixels = nn.ConvTranspose2d(
            in_channels, channels, patch_size, stride=patch_size
        )

    def forward(self, patches: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the images, N×channels×H×W.

        Args:
            patches: N×(h·w)×C.
            size: H and W in pixels.
        """
        height, width = (side // self.patch_size for side in size)
        x = self.mlp(patches).transpose(1, 2)
        pixels: Tensor = self.to_pixels(x.unflatten(2, (height, width)))
        return pixels

    def loss(self, patches: Tensor, clean: Tensor, mask: Tensor) -> Tensor:
        """Return the mean absolute error on the corrupted pixels.

        Args:
            patches: N×P×C tokens of the corrupted view.
            clean: N×channels×H×W, normalised.
            mask: N×1×H×W, True where a pixel is corrupted.
        """
        height, width = clean.shape[-2:]
        return masked_l1(self(patches, (height, width)), clean, mask)
