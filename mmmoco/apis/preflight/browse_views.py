"""The views of a config as pictures."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor
from torch.utils.data import default_collate

from mmmoco.apis.config.files import name_of
from mmmoco.datasets import SampleAddress
from mmmoco.datasets.transforms.views import Views
from mmmoco.registry import DATASETS, MODELS, in_scope_of
from mmmoco.visualization.views import ViewPicture, draw_views, value_range

#: Shares of the range from black to white of the original.
DARK, ALIKE = 0.05, 0.01


def draw(
    cfg: Config,
    out: str,
    num: int,
    seed: int,
    epoch: int,
    bands: Sequence[int],
) -> str:
    """Draw the grid of some samples; return what it shows.

    Args:
        cfg: Config of a pre-training.
        out: Picture to write.
        num: Number of samples.
        seed: Of the draws.
        epoch: Of the draws.
        bands: Which are shown as red, green and blue.

    Raises:
        ValueError: If the config has no pre-training data.
    """
    if 'train_dataloader' not in cfg or 'model' not in cfg:
        raise ValueError(
            f'{name_of(cfg)} has no train_dataloader or no model: views '
            'belong to configs of pre-training.'
        )
    with in_scope_of(cfg):
        samples = itertools.islice(read_samples(cfg, seed, epoch), num)
        rows = picture_rows(cfg, list(samples), seed)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    draw_views(out, rows, bands)
    titles = ', '.join(picture.title for picture in rows[0])
    said = [f'{out}: {len(rows)} samples, {titles}']
    faults: dict[str, list[str]] = {}
    for number, row in enumerate(rows, 1):
        for picture in row:
            where = f'{picture.title} of sample {number}'
            faults.setdefault(picture.fault, []).append(where)
    faults.pop('', None)
    said += [f'WARNING: {f}: {", ".join(at)}.' for f, at in faults.items()]
    if faults:
        said.append(
            'A network learns nothing from such views: look at the images, at '
            'mean, std and range, and at how strong the operations are.'
        )
    return '\n'.join(said)


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
            box = _box(in_workers[i].get(name, []))
            pixels = _pixels(x[i], augmentor)
            row.append(ViewPicture(pixels, name, notes, box=box))
        rows.append(_judged(row))
    return rows


def _box(steps: Sequence[tuple[str, dict[str, Any]]]) -> Any:
    """Return what the first crop took of the original, if it was noted."""
    for _, drawn in steps:
        if 'top' in drawn:
            return tuple(drawn[k] for k in ('top', 'left', 'height', 'width'))
    return None


def _judged(row: Sequence[ViewPicture]) -> list[ViewPicture]:
    """Say of pictures whether a network sees anything in them."""
    low, high = value_range(row[0].image)
    scaled = [
        None if p.image.dtype == bool else (p.image - low) / (high - low)
        for p in row
    ]
    judged = []
    for number, (picture, x) in enumerate(zip(row, scaled, strict=True)):
        fault = ''
        if x is None:
            pass
        elif np.nanpercentile(x, 99) < DARK:
            fault = 'nearly black'
        elif np.nanstd(x, axis=(0, 1)).max() < ALIKE:
            fault = 'nearly constant'
        else:
            for other, y in zip(row[1:number], scaled[1:number], strict=True):
                if (
                    y is not None
                    and x.shape == y.shape
                    and np.nanmean(np.abs(x - y)) < ALIKE
                ):
                    fault = f'nearly equal to {other.title}'
        judged.append(picture._replace(fault=fault))
    return judged


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
    drawn = dict(drawn)
    changes = drawn.pop('changes', None)
    text = ' '.join([name, *(f'{k}={_short(v)}' for k, v in drawn.items())])
    if changes is None:
        return text
    return f'{text}: {f"changes {changes:.3g}" if changes else "nothing"}'


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
