"""Pictures of prompts, maps and reconstructions."""

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmmoco.apis import cli
from mmmoco.engine import checkpoint_io
from mmmoco.evaluation.zero_shot import central_point, similarity_maps
from mmmoco.visualization.similarity import (
    draw_reconstructions,
    draw_segmentations,
)

from .features import DenseFeatures, normalised, of_objects
from .object_masks import ObjectMasks


def draw_maps(
    path: Path,
    features: DenseFeatures,
    data: ObjectMasks,
    count: int,
    threshold: float,
    upsample: str = 'bilinear',
) -> None:
    """Draw the first object of the first images that have one.

    Args:
        path: PNG to write.
        features: Dense features of images.
        data: Images with masks.
        count: Rows.
        threshold: T of the drawn masks.
        upsample: ``'bilinear'`` or ``'nearest'``.

    Raises:
        UsageError: If there is no object.
    """
    rows = []
    for _, item, (tokens,) in islice(of_objects(features, data, 1), count):
        mask = item.masks[0]
        point = central_point(mask)
        (one,) = similarity_maps(tokens, [point], mask.shape, upsample)
        rows.append((item.image, point, one.cpu().numpy(), mask))
    checkpoint_io.replace(
        path, lambda file: draw_segmentations(file, rows, threshold)
    )


@torch.no_grad()
def draw_restored(
    path: Path, model: Any, data: ObjectMasks, count: int, size: int
) -> None:
    """Corrupt images and let MMC restore them.

    What was not corrupted is shown as it was.

    Args:
        path: PNG to write.
        model: MMC with its reconstruction head.
        data: Images.
        count: Columns.
        size: Side of the images in pixels.

    Raises:
        UsageError: If the model does not reconstruct.
    """
    if 'rec' not in getattr(model, 'heads', {}):
        raise cli.UsageError(
            f'{type(model).__name__} has no reconstruction head '
            '(rec_weight=0?): leave --reconstructions out.'
        )
    model.eval()
    images = [data[i].image for i in range(min(count, len(data)))]
    clean = normalised(model, images, size)
    preprocessor = model.data_preprocessor
    draws = torch.Generator(clean.device).manual_seed(0)
    corrupted, mask = preprocessor.corruption(clean, draws)
    tokens = model.student_tokens(corrupted)
    restored = model.heads['rec'](tokens.patches, clean.shape[-2:])

    def pixels(x: torch.Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
        x = x * preprocessor.std + preprocessor.mean
        x = x.clamp(0, 255).round().to(torch.uint8)
        return x.permute(0, 2, 3, 1).cpu().numpy()

    shown = clean, corrupted, torch.where(mask, restored, clean)
    checkpoint_io.replace(
        path, lambda file: draw_reconstructions(file, *map(pixels, shown))
    )
