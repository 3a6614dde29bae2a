"""Images of any kind, as the evaluations of a config see them."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mmmoco.datasets.transforms.pipeline import build_pipeline
from mmmoco.engine.evaluation.preprocessing import CROPS, RESIZES
from mmmoco.registry import bare_type, value_at

from .config.image_range import settle_from
from .config.image_steps import Steps, steps_of

TAKEN = (
    'a path, a PIL image, an array H×W×C of uint8, a list of these, or '
    'normalised images as a tensor N×C×H×W'
)


class ImageInput:
    """Reads, resizes and crops images as the evaluation of a config does.

    By the transforms of ``knn.query``. Where a config has no ``knn``, by those
    that load the training images, and a crop in the middle, as large as in
    the training.

    Args:
        cfg: Config of the model.
        checkpoint: Tells the range of 16-bit images, if the config leaves it
            open.
    """

    def __init__(self, cfg: Config, checkpoint: str | None = None) -> None:
        self.cfg, self.checkpoint = cfg, checkpoint
        self._steps: Steps | None = None
        self._pipeline: Any = None

    def __call__(self, images: Any, channels: int) -> Tensor:
        """Return pixels N×C×H×W, not yet normalised.

        Args:
            images: A path, a PIL image, or an array H×W or H×W×C; a list of
                these; an array N×H×W×C; bytes as a tensor C×H×W or N×C×H×W.
            channels: That the model takes.

        Raises:
            OSError: If a file cannot be read.
            TypeError: If it is none of these.
            ValueError: If there is no image, or a shape does not fit.
        """
        made = [self._one(image, channels) for image in _each(images)]
        if not made:
            raise ValueError('There is no image: the list is empty.')
        for at, image in enumerate(made):
            if image.shape != made[0].shape:
                raise ValueError(
                    f'Image {at} has {_size(image)} pixels, image 0 has '
                    f'{_size(made[0])}, and this model does not bring '
                    'images to one size: give equally large ones, or one at a '
                    'time.'
                )
        return torch.stack(made)

    def _one(self, image: Any, channels: int) -> Tensor:
        if self._steps is None:
            cfg = copy.deepcopy(self.cfg)
            if self.checkpoint:
                settle_from(cfg, self.checkpoint)
            self._steps = steps_of(cfg)
            seen = value_at(cfg, 'knn.query.dataset')
            if seen and not seen.get('pipeline'):  # Those are seen whole.
                self._steps = [x for x in self._steps if not _resizes(x)]
            self._pipeline = build_pipeline(self._steps)
        loader = bare_type(self._steps[0]).rpartition('/')[2]
        sample: dict[str, Any] = {'sample_idx': 0}
        steps = self._pipeline.transforms
        if isinstance(image, str | os.PathLike):
            path = Path(image)
            if path.is_dir():
                raise IsADirectoryError(
                    f'{str(path)!r} is a folder: give a list of its files.'
                )
            sample['img_path'] = os.fspath(path)
        else:
            sample['img'] = self._pixels(image, channels, loader)
            # What reads files has nothing to do.
            steps = steps if loader == 'LoadRGB' else steps[1:]
        try:
            for step in steps:
                sample = step(sample)
        except OSError as error:
            if 'img_path' in sample:
                raise
            raise ValueError(str(error)) from error
        found: Tensor = sample['inputs']['image']
        if len(found) != channels:
            raise ValueError(
                f'The image has {len(found)} channels, the model takes '
                f'{channels}.'
            )
        return found

    def _pixels(
        self, image: Image.Image | NDArray[Any], channels: int, loader: str
    ) -> Image.Image | NDArray[Any]:
        """Return an image in memory as the transforms take it."""
        if loader not in ('LoadRGB', 'LoadBands'):
            raise TypeError(
                f'This model reads images by {loader}: give paths.'
            )
        if isinstance(image, Image.Image):
            if loader == 'LoadRGB':
                return image
            mode = {1: 'L', 3: 'RGB', 4: 'RGBA'}.get(channels, image.mode)
            image = np.array(image.convert(mode))
        if image.ndim == 2:
            image = image[..., None]
        fits = (1, 3, 4) if loader == 'LoadRGB' else (channels,)
        shape = f'An array of {image.dtype}, shape {image.shape}'
        if image.ndim != 3 or 0 in image.shape or image.shape[2] not in fits:
            turned = image.ndim == 3 and image.shape[0] in fits
            raise ValueError(
                f'{shape}: the model takes {channels} channels, as H×W×C'
                f'{"; this one looks like C×H×W" if turned else ""}.'
            )
        scaled = any(
            bare_type(step).endswith('ScaleBands') or step.get('range')
            for step in self._steps or ()
        )
        if image.dtype.kind == 'f' and not scaled and image.max() <= 1:
            raise ValueError(
                f'{shape}, values up to {image.max():g}: give bytes, 0 to 255 '
                '((255 * x).astype("uint8")).'
            )
        return image


def _resizes(step: Mapping[str, Any]) -> bool:
    return bare_type(step).rpartition('/')[2] in (*CROPS, *RESIZES)


def _each(images: Any) -> Iterator[Any]:
    """Yield single images; tensors as arrays H×W×C."""
    if isinstance(images, list | tuple):
        for image in images:
            yield from _each(image)
    elif isinstance(images, Tensor):
        if images.is_floating_point() or images.dim() not in (3, 4):
            raise TypeError(
                f'A tensor of {images.dtype}, shape {tuple(images.shape)}: '
                f'give {TAKEN}.'
            )
        batch = images if images.dim() == 4 else images[None]
        yield from batch.permute(0, 2, 3, 1).cpu().numpy()
    elif isinstance(images, np.ndarray) and images.ndim == 4:
        yield from images
    elif isinstance(images, str | os.PathLike | Image.Image | np.ndarray):
        yield images
    else:
        raise TypeError(f'{type(images).__name__} is no image: give {TAKEN}.')


def _size(image: Tensor) -> str:
    return f'{image.shape[-1]}×{image.shape[-2]}'
