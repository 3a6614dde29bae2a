"""Pictures of prompts and maps: behind ``tools/visualize_similarity.py``."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger

from mmmoco.apis import cli
from mmmoco.apis.config.files import load_config
from mmmoco.apis.probing.protocol import same_eyes
from mmmoco.engine import checkpoint_io
from mmmoco.evaluation.zero_shot import central_point, similarity_maps
from mmmoco.visualization import draw_reconstructions, draw_segmentations

from . import object_data
from .features import DenseFeatures, load_model, normalised
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
    for index in range(len(data)):
        item = data[index]
        if item.classes:
            mask = item.masks[0]
            (tokens,) = features([item.image])
            point = central_point(mask)
            (one,) = similarity_maps(tokens[0], [point], mask.shape, upsample)
            rows.append((item.image, point, one.cpu().numpy(), mask))
        if len(rows) == count:
            break
    if not rows:
        raise cli.UsageError('The images hold no object: see --min-area.')
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


def parser() -> argparse.ArgumentParser:
    """Return the command line of ``tools/visualize_similarity.py``."""
    result = argparse.ArgumentParser(
        prog='visualize_similarity.py',
        description='Draw images with a prompt, their similarity maps, the '
        'masks above T and the ground truth; with --reconstructions also '
        'what MMC restores.',
        epilog='Example: python tools/visualize_similarity.py '
        'demo/mmc_digits work_dirs/mmc_digits/epoch_27.pth --threshold 0.95',
    )
    object_data.add_arguments(result)
    result.add_argument('--count', type=int, default=5, help='default: 5')
    result.add_argument(
        '--threshold', type=float, default=0.3, help='T; default: 0.3'
    )
    result.add_argument(
        '--upsample', choices=('bilinear', 'nearest'), default='bilinear'
    )
    result.add_argument('--reconstructions', action='store_true')
    result.add_argument(
        '--work-dir', help="where the PNGs go (the checkpoint's folder)"
    )
    cli.add_cfg_options(result)
    cli.add_debug(result)
    return result


def draw(args: argparse.Namespace) -> None:
    """Draw as the command line says."""
    logger = MMLogger.get_instance('mmmoco', log_level='INFO')
    if args.count < 1:
        raise cli.UsageError(f'--count {args.count}: must be at least 1.')
    cfg: Config = load_config(args.config, args.cfg_options)
    data = object_data.object_data(args)
    same_eyes(cfg, args.checkpoint)
    features = object_data.dense_features(args, cfg)
    folder = Path(object_data.work_dir_of(args))
    folder.mkdir(parents=True, exist_ok=True)
    files = ['similarity_maps.png']
    draw_maps(
        folder / files[0],
        features,
        data,
        args.count,
        args.threshold,
        args.upsample,
    )
    if args.reconstructions:
        files.append('reconstructions.png')
        model = load_model(cfg, args.checkpoint)
        size = object_data.image_size(args, cfg)
        draw_restored(folder / files[1], model, data, args.count, size)
    logger.info(f'Written to {str(folder)!r}: {", ".join(files)}')


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``tools/visualize_similarity.py``."""
    args = parser().parse_args(argv)
    cli.run(lambda: draw(args), 'visualize_similarity.py', args.debug)
