"""Similarities in and between objects: behind ``tools/similarity.py``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.logging import MMLogger

from mmmoco.apis import cli
from mmmoco.apis.config.files import load_config
from mmmoco.apis.probing.protocol import same_eyes
from mmmoco.engine import checkpoint_io
from mmmoco.engine.results import append_result
from mmmoco.evaluation.similarity import PairSimilarities, patch_objects
from mmmoco.visualization import plot_similarities

from . import object_data
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


def parser() -> argparse.ArgumentParser:
    """Return the command line of ``tools/similarity.py``."""
    result = argparse.ArgumentParser(
        prog='similarity.py',
        description='Cosines of patch pairs inside objects and between '
        'them: means, overlap coefficient, AUC, and a figure.',
        epilog='Example: python tools/similarity.py demo/mmc_digits '
        'work_dirs/mmc_digits/epoch_27.pth --layers 0 1 2 3',
    )
    object_data.add_arguments(result)
    result.add_argument(
        '--layers', type=int, nargs='+', metavar='I', help='default: the last'
    )
    result.add_argument(
        '--background',
        action='store_true',
        help='what no object covers counts as one more object',
    )
    result.add_argument('--seed', type=int, default=0)
    cli.add_work_dir(result)
    cli.add_cfg_options(result)
    cli.add_debug(result)
    return result


def evaluate(args: argparse.Namespace) -> None:
    """Measure as the command line says; write figures and histograms."""
    logger = MMLogger.get_instance('mmmoco', log_level='INFO')
    cfg = load_config(args.config, args.cfg_options)
    data = object_data.object_data(args)
    eyes = same_eyes(cfg, args.checkpoint)
    torch.manual_seed(args.seed)  # of random weights
    features = object_data.dense_features(args, cfg, args.layers)
    found = measure(
        features, data, args.batch_size, args.limit, args.background
    )
    layers = sorted(args.layers) if args.layers else ['last']
    folder = Path(object_data.work_dir_of(args))
    histograms = {}
    for layer, pairs in zip(layers, found, strict=True):
        metrics = pairs.metrics()
        logger.info(
            f'layer {layer}: intra {metrics["intra_mean"]:.3f} ± '
            f'{metrics["intra_std"]:.3f}, inter {metrics["inter_mean"]:.3f} '
            f'± {metrics["inter_std"]:.3f}, overlap '
            f'{metrics["overlap"]:.3f}, AUC {metrics["auc"]:.3f}'
        )
        histograms[f'layer {layer}'] = (
            pairs.intra.numpy(),
            pairs.inter.numpy(),
        )
        append_result(
            str(folder),
            task='similarity',
            protocol=object_data.protocol_of(args, cfg)
            | {'layer': layer, 'background': args.background},
            metrics=metrics,
            cfg=cfg,
            checkpoint=args.checkpoint,
            seed=args.seed,
            remarks={'eyes': eyes},
        )
    checkpoint_io.replace(
        folder / 'similarity.png',
        lambda file: plot_similarities(file, histograms),
    )
    logger.info(f'Written to {str(folder)!r}: results.jsonl, similarity.png')


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``tools/similarity.py``."""
    args = parser().parse_args(argv)
    cli.run(lambda: evaluate(args), 'similarity.py', args.debug)
