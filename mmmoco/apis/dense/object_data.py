"""The data sets and features that tools of dense evaluation share."""

import argparse
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmmoco.apis.cli import UsageError
from mmmoco.datasets.digit_scenes import DigitScenes

from .features import (
    ColourFeatures,
    DenseFeatures,
    Layers,
    ModelFeatures,
    load_model,
)
from .object_masks import (
    CocoObjects,
    LabelObjects,
    ObjectMasks,
    PanopticObjects,
    SceneObjects,
)

KINDS = ('digits', 'coco', 'panoptic', 'voc', 'cityscapes')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what says which images, which model and which features."""
    parser.add_argument('config', help='path, name, or package::path')
    parser.add_argument(
        'checkpoint', nargs='?', help='file; random weights without it'
    )
    parser.add_argument(
        '--dataset', choices=KINDS, default='digits', help='default: digits'
    )
    parser.add_argument(
        '--annotations', help='JSON of coco or panoptic; its root for others'
    )
    parser.add_argument(
        '--images', help='folder of the images (coco, panoptic)'
    )
    parser.add_argument('--split', default='val', help='default: val')
    parser.add_argument(
        '--min-area', type=int, default=1, help='leave smaller objects out'
    )
    parser.add_argument(
        '--stuff', action='store_true', help='panoptic: keep it'
    )
    parser.add_argument(
        '--limit', type=int, help='use the first N images only'
    )
    parser.add_argument(
        '--size', type=int, help="side of the images (the backbone's img_size)"
    )
    parser.add_argument('--batch-size', type=int, default=16)
    parser.add_argument(
        '--features',
        choices=('model', 'colour'),
        default='model',
        help='colour: mean colour of the patches, to compare with',
    )
    parser.add_argument('--encoder', choices=('query', 'key'), default='query')


def object_data(args: argparse.Namespace) -> ObjectMasks:
    """Build the data set that the command line names.

    Raises:
        UsageError: If an argument is missing.
    """
    if args.dataset == 'digits':
        return digit_scenes(args.split, args.limit or 300, args.min_area)
    if args.annotations is None:
        raise UsageError(f'--dataset {args.dataset} needs --annotations.')
    if args.dataset in ('coco', 'panoptic'):
        if args.images is None:
            raise UsageError(f'--dataset {args.dataset} needs --images.')
        if args.dataset == 'coco':
            return CocoObjects(args.annotations, args.images, args.min_area)
        return PanopticObjects(
            args.annotations, args.images, args.stuff, args.min_area
        )
    if not Path(args.annotations).is_dir():
        raise UsageError(
            f'--annotations {args.annotations!r} is no folder; '
            f'--dataset {args.dataset} takes the root of the data set.'
        )
    if args.dataset == 'voc':
        return LabelObjects.voc(args.annotations, args.split, args.min_area)
    return LabelObjects.cityscapes(
        args.annotations, args.split, min_area=args.min_area
    )


def digit_scenes(split: str, count: int, min_area: int = 1) -> SceneObjects:
    """Return scenes of several digits, of the kind that demos train on.

    Canvas, contrast and noise are those of
    ``configs/_base_/datasets/digits.py``.

    Args:
        split: ``'train'`` or ``'val'``.
        count: Number of scenes.
        min_area: Digits with fewer visible pixels are left out.
    """
    scenes = DigitScenes(
        split=split,
        size=64,
        digits_per_image=(2, 4),
        num_scenes=count,
        seed=1,
        background=(30.0, 150.0),
        contrast=(60.0, 105.0),
        noise=(2.0, 6.0),
    )
    return SceneObjects(scenes, min_area)


def image_size(args: argparse.Namespace, cfg: Config) -> int:
    """Return the side of the images: given, or the backbone's."""
    if args.size is not None:
        return int(args.size)
    if args.dataset == 'digits':
        return 64
    side = cfg.model.backbone.get('img_size', 224)
    return int(side if isinstance(side, int) else side[0])


def dense_features(
    args: argparse.Namespace, cfg: Config, layers: Layers = None
) -> DenseFeatures:
    """Build the features that the command line names."""
    init_default_scope(cfg.get('default_scope', 'mmmoco'))
    model: Any = load_model(cfg, args.checkpoint)
    size = image_size(args, cfg)
    if args.features == 'colour':
        return ColourFeatures(
            model, size, cfg.model.backbone.get('patch_size', 16)
        )
    return ModelFeatures(model, size, args.encoder, layers)


def protocol_of(args: argparse.Namespace, cfg: Config) -> dict[str, Any]:
    """Return what the figures depend on, for ``results.jsonl``."""
    return {
        'dataset': args.dataset,
        'annotations': args.annotations,
        'split': args.split,
        'size': image_size(args, cfg),
        'min_area': args.min_area,
        'features': args.features,
        'encoder': args.encoder,
        'weights': 'random' if args.checkpoint is None else 'checkpoint',
    }


def work_dir_of(args: argparse.Namespace) -> str:
    """Return where results go."""
    if args.work_dir:
        return str(args.work_dir)
    if args.checkpoint:
        return str(Path(args.checkpoint).parent)
    return 'work_dirs/' + Path(args.config).stem
