"""Similarities in and between objects."""

from collections.abc import Mapping
from pathlib import Path

import torch

from mmmoco.engine import checkpoint_io
from mmmoco.evaluation.similarity import PairSimilarities, patch_objects
from mmmoco.messages import log_info
from mmmoco.visualization.similarity import plot_similarities

from .features import DenseFeatures, in_batches
from .object_masks import ObjectMasks


def measure(
    features: DenseFeatures,
    data: ObjectMasks,
    batch_size: int = 16,
    limit: int | None = None,
    background: bool = False,
) -> list[PairSimilarities]:
    """Collect the pairs of every image, for each layer of the features.

    Args:
        features: Dense features of images.
        data: Images with masks.
        batch_size: Images in one forward.
        limit: Use the first images only.
        background: Count what no object covers as one more object.
    """
    result: list[PairSimilarities] = []
    for batch in in_batches(min(len(data), limit or len(data)), batch_size):
        items = [data[i] for i in batch]
        for layer, maps in enumerate(features([item.image for item in items])):
            if layer == len(result):
                result.append(PairSimilarities())
            for tokens, item in zip(maps, items, strict=True):
                if not item.classes:
                    continue
                grid = (tokens.shape[1], tokens.shape[2])
                masks = torch.from_numpy(item.masks)
                objects = patch_objects(masks, grid, background)
                result[layer].add(tokens, objects)
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
