"""Look at the views of a config: the job behind ``tools/browse_views.py``."""

import argparse
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from torch import Tensor
from torch.utils.data import default_collate

from mmmoco.apis import cli
from mmmoco.apis.config.files import load_config
from mmmoco.datasets import SampleAddress
from mmmoco.datasets.transforms import Views
from mmmoco.registry import DATASETS, MODELS
from mmmoco.visualization import ViewPicture, draw_views


def parser() -> argparse.ArgumentParser:
    """Return the command line of ``tools/browse_views.py``."""
    result = argparse.ArgumentParser(
        prog='browse_views.py',
        description='Draw the originals and all views of some samples, with '
        'the parameters that were drawn, exactly as training gets them.',
        epilog='Example: python tools/browse_views.py mocov3_vit-s_8xb128_300e'
        ' --out views.png --cfg-options '
        'train_dataloader.dataset.data_root=/my/images',
    )
    result.add_argument('config', help='path, name, or package::path')
    result.add_argument('--out', default='views.png', metavar='PNG')
    result.add_argument(
        '--num', type=int, default=4, metavar='N', help='samples (4)'
    )
    result.add_argument('--seed', type=int, default=0)
    result.add_argument('--epoch', type=int, default=0)
    result.add_argument(
        '--bands',
        type=int,
        nargs=3,
        default=(0, 1, 2),
        metavar=('R', 'G', 'B'),
        help='bands to show as red, green, blue where there are more (0 1 2)',
    )
    cli.add_cfg_options(result)
    cli.add_debug(result)
    return result


def browse(args: argparse.Namespace) -> None:
    """Draw the grid that the command line asks for.

    Raises:
        KeyError: If the config has no pre-training data.
        ValueError: If ``--num`` is below 1.
    """
    if args.num < 1:
        raise ValueError(f'--num {args.num}: draw at least one sample.')
    cfg = load_config(args.config, args.cfg_options)
    if 'train_dataloader' not in cfg or 'model' not in cfg:
        raise KeyError(
            f'{args.config} has no train_dataloader or no model: views '
            'belong to configs of pre-training.'
        )
    with DefaultScope.overwrite_default_scope(
        cfg.get('default_scope', 'mmmoco')
    ):
        samples = list(
            itertools.islice(
                read_samples(cfg, args.seed, args.epoch), args.num
            )
        )
        rows = picture_rows(cfg, samples, args.seed)
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    draw_views(args.out, rows, args.bands)
    MMLogger.get_instance('mmmoco', log_level='INFO').info(
        f'{args.out}: {len(rows)} samples, '
        f'{", ".join(picture.title for picture in rows[0])}'
    )


def read_samples(
    cfg: Config, seed: int, epoch: int
) -> Iterator[dict[str, Any]]:
    """Yield samples of the training data, with what their views drew."""
    dataset: Any = DATASETS.build(cfg.train_dataloader.dataset)
    for transform in dataset.pipeline.transforms:
        if isinstance(transform, Views):
            transform.record = True
    if not hasattr(dataset, '__getitem__') or not hasattr(dataset, '__len__'):
        yield from dataset
        return
    # Spread over the data set, which is often sorted by class.
    order = np.random.default_rng(seed).permutation(len(dataset))
    for index in order.tolist():
        yield dataset[SampleAddress(index, epoch, seed)]


def picture_rows(
    cfg: Config, samples: list[dict[str, Any]], seed: int
) -> list[list[ViewPicture]]:
    """Finish the views as the data preprocessor does, and describe them."""
    in_workers = [sample.pop('drawn', {}) for sample in samples]
    originals = [sample.pop('original', None) for sample in samples]
    batch = default_collate(samples)
    settings = dict(cfg.model.data_preprocessor)
    settings.setdefault('type', 'ViewAugmentor')
    augmentor: Any = MODELS.build(settings)
    augmentor.set_address(seed=seed, step=0, rank=0)
    augmentor.drawn = {}
    sources = {name: x.clone() for name, x in batch['inputs'].items()}
    views = augmentor(batch, True)['inputs']
    rows = []
    for i in range(len(samples)):
        original = originals[i]
        if original is None:
            # Nothing was cut by the workers: they sent the image itself.
            original = _channels_last(next(iter(sources.values()))[i])
        row = [ViewPicture(original, 'original', [_shape(original)])]
        for name, x in views.items():
            notes = list(map(_note, in_workers[i].get(name, [])))
            notes += _device_notes(augmentor.drawn.get(name, []), i, len(x))
            row.append(ViewPicture(_pixels(x[i], augmentor), name, notes))
        rows.append(row)
    return rows


def _channels_last(x: Tensor) -> Any:
    return x.permute(1, 2, 0).cpu().numpy()


def _pixels(x: Tensor, augmentor: Any) -> Any:
    """Undo the normalisation; a mask is left as it is."""
    if x.dtype == torch.bool:
        return _channels_last(x)
    return _channels_last(x * augmentor.std[0] + augmentor.mean[0])


def _shape(image: Any) -> str:
    height, width, channels = image.shape
    return f'{height}×{width}×{channels} {image.dtype}'


def _note(step: tuple[str, dict[str, Any]]) -> str:
    """Return one operation and its parameters as a line."""
    kind, drawn = step
    name = kind.removeprefix('Fast').removeprefix('Batch')
    return ' '.join([name, *(f'{k}={_short(v)}' for k, v in drawn.items())])


def _short(value: Any) -> str:
    if isinstance(value, bool | int):
        return str(int(value))
    return f'{float(value):.2f}'


def _device_notes(
    steps: Sequence[tuple[str, dict[str, Tensor]]], i: int, n: int
) -> list[str]:
    """Return the lines of one sample of a batch."""
    lines = []
    for kind, drawn in steps:
        own = {k: v[i].tolist() for k, v in drawn.items() if len(v) == n}
        if not own.pop('acts', True):
            continue
        if 'order' in own:
            names = ('brightness', 'contrast', 'saturation', 'hue')
            order, factors = own.pop('order'), own.pop('factors')
            own = {names[j]: factors[j] for j in order}
        lines.append(_note((kind, own)))
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``tools/browse_views.py``."""
    args = parser().parse_args(argv)
    cli.run(lambda: browse(args), 'browse_views.py', args.debug)
