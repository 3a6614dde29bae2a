"""Patch tokens or feature maps of any model here, for whole batches."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.device import get_device
from numpy.typing import NDArray
from torch import Tensor, nn

from mmmoco.apis.cli import UsageError, require_file
from mmmoco.apis.model import get_model
from mmmoco.engine import checkpoint_io
from mmmoco.models.backbones import TimmBackbone
from mmmoco.progress import track
from mmmoco.two_phase import TwoPhaseModel

from .object_masks import MaskedImage, ObjectMasks

#: Uint8 images H×W×3 → for each layer, N×C×h×w.
DenseFeatures = Callable[[Sequence[NDArray[np.uint8]]], list[Tensor]]

#: One side for both, or height and width.
Size = int | tuple[int, int]

Layers = Sequence[int] | None


def load_model(cfg: Config, checkpoint: str | None) -> nn.Module:
    """Build a model with the weights of a checkpoint.

    A file that holds nothing but ``backbone.…``, as an imported one does,
    fills the backbone only; without a file the weights are random.

    Args:
        cfg: Config of the model.
        checkpoint: File, or None.

    Raises:
        FileNotFoundError: If the file does not exist.
    """
    if checkpoint is None:
        return get_model(cfg)
    require_file(checkpoint)
    weights = checkpoint_io.read_weights(checkpoint)
    if any(not name.startswith('backbone.') for name in weights):
        return get_model(cfg, checkpoint)
    model = get_model(cfg)
    checkpoint_io.load_into(model, weights, checkpoint, needed=('backbone.',))
    return model


class ModelFeatures:
    """The dense features of a model's backbone, with one pass per batch.

    A vision transformer gives its patch tokens (those of the last block
    after its final norm), a convolutional network its feature maps.

    Args:
        model: An algorithm with ``backbone``.
        size: Side to which images are resized, or height and width.
        encoder: ``'query'`` or ``'key'`` (the teacher).
        layers: Blocks (ViT, from 0) or stages of a ResNet; None: the last.

    Raises:
        UsageError: If the model has no such encoder or layer.
    """

    def __init__(
        self,
        model: Any,
        size: Size,
        encoder: str = 'query',
        layers: Layers = None,
    ) -> None:
        self.model = model.eval().to(get_device())
        backbone = model.backbone
        if encoder == 'key':
            ours = isinstance(model, TwoPhaseModel)
            if not ours or model.key_encoder is None:
                raise UsageError(
                    f'--encoder key: {type(model).__name__} has no key '
                    'encoder.'
                )
            # Its BatchNorm must use running statistics here.
            backbone = model.key_encoder.backbone
            backbone.eval()
        if hasattr(backbone, 'out_type'):
            backbone.out_type = 'featmap'
        if layers is not None:
            count = layer_count(backbone)
            if not layers or not all(0 <= i < count for i in layers):
                raise UsageError(
                    f'--layers {list(layers)}: '
                    f'{type(backbone).__name__} has layers 0 to {count - 1}.'
                )
            backbone.out_indices = sorted(layers)
        self.backbone, self.size, self.layers = backbone, size, layers
        if any(side % self.patch_size for side in _both(self.size)):
            raise UsageError(
                f'--size {self.size} is no multiple of the patch size '
                f'{self.patch_size}.'
            )

    @property
    def patch_size(self) -> int:
        """Side of a transformer's patch; 1 for convolutional networks."""
        if isinstance(self.backbone, TimmBackbone):
            return int(self.backbone.patch_size)
        patches = getattr(self.backbone, 'patch_embed', None)
        stride = getattr(getattr(patches, 'projection', None), 'stride', None)
        return int(stride[0]) if isinstance(stride, tuple) else 1

    @torch.no_grad()
    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> list[Tensor]:
        """Return N×C×h×w for each layer."""
        x = normalised(self.model, images, self.size)
        outputs = self.backbone(x)
        if isinstance(outputs, Tensor):
            outputs = (outputs,)
        if self.layers is None:
            outputs = outputs[-1:]
        for feature in outputs:
            if feature.dim() != 4:
                raise UsageError(
                    f'{type(self.backbone).__name__} gives no map of '
                    f'features but {tuple(feature.shape)}.'
                )
        return list(outputs)


def layer_count(backbone: Any) -> int:
    """Return how many blocks or stages can be asked for; 0: none."""
    blocks = len(getattr(backbone, 'layers', ()))
    return blocks or int(getattr(backbone, 'num_stages', 0))


@torch.no_grad()
def mean_colours(
    images: Sequence[NDArray[np.uint8]],
    model: Any,
    size: Size,
    patch_size: int,
) -> list[Tensor]:
    """Return the mean colour of every patch: the floor of any backbone.

    Args:
        images: N images H×W×3 of any size.
        model: Its preprocessor normalises the colours.
        size: As for :class:`ModelFeatures`.
        patch_size: Side of a patch in pixels.

    Returns:
        N×3×h×w.
    """
    return [F.avg_pool2d(normalised(model, images, size), patch_size)]


def normalised(
    model: Any, images: Sequence[NDArray[np.uint8]], size: Size
) -> Tensor:
    """Resize images and normalise them as the model's.

    Args:
        model: An algorithm with a data preprocessor.
        images: N images H×W×3 of any size.
        size: Side of the result, or height and width.
    """
    height, width = _both(size)
    resized = []
    for image in images:  # One of this size is copied.
        smaller = min(image.shape[:2]) > min(height, width)
        kind = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
        resized.append(cv2.resize(image, (width, height), interpolation=kind))
    x = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).contiguous()
    mean = getattr(model.data_preprocessor, 'mean', None)
    if mean is not None and mean.numel() == 1:
        # Grey by Rec. 601, as PIL converts.
        weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
        x = (x * weights).sum(1, keepdim=True).round().to(torch.uint8)
    batch = model.data_preprocessor({'inputs': {'image': x}}, False)
    result: Tensor = batch['inputs']['image']
    return result


def _both(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def of_objects(
    features: DenseFeatures, data: ObjectMasks, batch_size: int
) -> Iterator[tuple[int, MaskedImage, list[Tensor]]]:
    """Yield the images that hold an object: number, image, C×h×w by layer.

    Args:
        features: Dense features of images.
        data: Images with masks.
        batch_size: Images in one forward.

    Raises:
        UsageError: If no image holds an object.
    """
    found = False
    starts = range(0, len(data), batch_size)
    for start in track(starts, 'Batches of images'):
        numbers = range(start, min(start + batch_size, len(data)))
        items = [data[i] for i in numbers]
        layers = features([item.image for item in items])
        for i, item, *maps in zip(numbers, items, *layers, strict=True):
            if item.classes:
                found = True
                yield i, item, maps
    if not found:
        raise UsageError('The images hold no object: see --min-area.')
