"""Similarities in and between objects."""

from collections.abc import Mapping
from pathlib import Path

import torch

from mmmoco.engine import checkpoint_io
from mmmoco.evaluation.similarity import PairSimilarities, patch_objects
from mmmoco.messages import log_info
from mmmoco.visualization.similarity import plot_similarities

from .features import DenseFeatures, of_objects
from .object_masks import ObjectMasks


def measure(
    features: DenseFeatures,
    data: ObjectMasks,
    batch_size: int = 16,
    background: bool = False,
) -> list[PairSimilarities]:
    """Collect the pairs of every image, for each layer of the features.

    Args:
        features: Dense features of images.
        data: Images with masks.
        batch_size: Images in one forward.
        background: Count what no object covers as one more object.

    Raises:
        UsageError: If there is no object.
    """
    result: list[PairSimilarities] = []
    for _, item, layers in of_objects(features, data, batch_size):
        result = result or [PairSimilarities() for _ in layers]
        for pairs, tokens in zip(result, layers, strict=True):
            grid = (tokens.shape[1], tokens.shape[2])
            masks = torch.from_numpy(item.masks)
            pairs.add(tokens, patch_objects(masks, grid, background))
    return result


def log_figures(layer: int | str, metrics: Mapping[str, float]) -> None:
    """Log the figures of a layer in one line."""
    log_info(
        f'layer {layer}: intra {metrics["intra_mean"]:.3f} ± '
        f'{metrics["intra_std"]:.3f}, inter {metrics["inter_mean"]:.3f} '
        f'± {metrics["inter_std"]:.3f}, overlap '
        f'{metrics["overlap"]:.3f}, AUC {metrics["auc"]:.3f}'
    )


def write_histograms(
    folder: Path, pairs: Mapping[int | str, PairSimilarities]
) -> None:
    """Write ``similarity.png``."""
    histograms = {
        f'layer {layer}': (own.intra.numpy(), own.inter.numpy())
        for layer, own in pairs.items()
    }
    checkpoint_io.replace(
        folder / 'similarity.png',
        lambda file: plot_similarities(file, histograms),
    )
