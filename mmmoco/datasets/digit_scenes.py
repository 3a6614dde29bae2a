"""A data set without files: scenes of handwritten digits."""

import dataclasses
import hashlib
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from mmmoco.messages import log_warning
from mmmoco.registry import DATASETS

from .addressed import AddressedDataset, SampleAddress
from .digit_painter import (
    CLASSES,
    DRAWING_VERSION,
    SceneDigit,
    ScenePainter,
    source_split,
)


class _Scenes(NamedTuple):
    images: npt.NDArray[np.uint8]  # N×H×W
    labels: npt.NDArray[np.int64]  # N
    source_ids: npt.NDArray[np.int64]  # N×most digits in a scene, −1: none


@DATASETS.register_module()
class DigitScenes(AddressedDataset):
    """Scenes of scikit-learn's handwritten digits, drawn when made.

    The label of a scene is that of its first digit, which is always there;
    further ones are left out when there is no room. Scene i shows digit
    i modulo the digits of the split first, so all are shown equally often.
    Scenes that show the same digit first are a group.

    Without ``pipeline`` a sample is ``{'inputs': {'image': uint8 C×H×W},
    'ids': int, 'labels': int, 'groups': int}``. Otherwise the first transform
    receives a PIL image as ``img``, with ``sample_idx``, ``gt_label`` and
    ``group``.

    Args:
        split: ``'train'`` or ``'val'``; they share no digit.
        size: Side of the scenes in pixels.
        digits_per_image: A number, or the lowest and the highest.
        scenes_per_digit: Scenes for each of the 1,437 (train) or 360 (val)
            digits.
        num_scenes: Number of scenes, instead of ``scenes_per_digit``.
        seed: Seed of all draws; the split does not depend on it.
        scale: Lowest and highest size of a digit, as a fraction of
            ``size``. None stands for (0.5, 0.9) with one digit in a scene
            and (0.25, 0.45) with several.
        max_slant: Highest slant to either side, in degrees.
        background: Lowest and highest grey level of the canvas.
        contrast: Lowest and highest number of grey levels by which a digit
            is brighter than the canvas.
        noise: Lowest and highest standard deviation of the noise, in grey
            levels.
        max_overlap: How much of the smaller one two digits' boxes may share.
        channels: 1, or 3 equal ones, which any backbone takes.
        pipeline: Configs of transforms.
        cache_dir: Folder in which to keep the drawn scenes for later runs.

    Raises:
        ValueError: If an argument is out of range.
    """

    classes = CLASSES
    grouped = True
    groups: npt.NDArray[np.int64]

    def __init__(
        self,
        split: str = 'train',
        size: int = 16,
        digits_per_image: int | Sequence[int] = 1,
        scenes_per_digit: int = 3,
        num_scenes: int | None = None,
        seed: int = 0,
        scale: Sequence[float] | None = None,
        max_slant: float = 15.0,
        background: Sequence[float] = (40.0, 140.0),
        contrast: Sequence[float] = (60.0, 115.0),
        noise: Sequence[float] = (8.0, 16.0),
        max_overlap: float = 0.1,
        channels: int = 3,
        pipeline: Sequence[dict[str, Any]] = (),
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(pipeline)
        if isinstance(digits_per_image, int):
            digits_per_image = (digits_per_image, digits_per_image)
        if scale is None:
            scale = (0.5, 0.9) if digits_per_image[-1] == 1 else (0.25, 0.45)
        self.painter = ScenePainter(
            split=split,
            size=size,
            digits_per_image=tuple(digits_per_image),  # type: ignore[arg-type]
            scale=_pair(scale),
            max_slant=max_slant,
            background=_pair(background),
            contrast=_pair(contrast),
            noise=_pair(noise),
            max_overlap=max_overlap,
            seed=seed,
        )
        if channels not in (1, 3):
            raise ValueError(
                f'DigitScenes: channels={channels}: use 1 (grey) or 3 (RGB).'
            )
        if num_scenes is None:
            num_scenes = scenes_per_digit * len(source_split(split))
        if num_scenes < 1:
            raise ValueError(
                f'DigitScenes: num_scenes={num_scenes} (scenes_per_digit × '
                'digits if not given): use at least 1.'
            )
        self.channels = channels
        scenes = _cached(self.painter, num_scenes, cache_dir)
        self.images = torch.from_numpy(scenes.images)
        self.labels: list[int] = scenes.labels.tolist()
        self.source_ids = scenes.source_ids
        self.groups = scenes.source_ids[:, 0]

    def __len__(self) -> int:
        """Number of scenes."""
        return len(self.images)

    def sample(self, index: int) -> dict[str, Any]:
        """Return image, position and class of a scene."""
        image = Image.fromarray(self.images[index].numpy())
        return {
            'img': image if self.channels == 1 else image.convert('RGB'),
            'sample_idx': index,
            'gt_label': self.labels[index],
            'group': int(self.groups[index]),
        }

    def annotations(self, index: int) -> list[SceneDigit]:
        """Return the digits of a scene, the first one first."""
        return self.painter.draw(index)[1]

    def __getitem__(self, item: int | SampleAddress) -> dict[str, Any]:
        """Return one sample."""
        if self.pipeline.transforms:
            return super().__getitem__(item)
        return self.__getitems__([item])[0]

    def __getitems__(
        self, items: Sequence[int | SampleAddress]
    ) -> list[dict[str, Any]]:
        """Return the samples of a batch; the data loader prefers this."""
        if self.pipeline.transforms:
            return [super(DigitScenes, self).__getitem__(i) for i in items]
        known = range(len(self))  # Takes −1 for the last; refuses others.
        ids = [
            known[i.index if isinstance(i, SampleAddress) else int(i)]
            for i in items
        ]
        # A copy of the batch: a step that writes into a sample leaves the
        # data set as it is.
        images = self.images[ids].unsqueeze(1)
        if self.channels == 3:
            images = images.repeat(1, 3, 1, 1)
        return [
            {
                'inputs': {'image': x},
                'ids': i,
                'labels': self.labels[i],
                'groups': int(self.groups[i]),
            }
            for i, x in zip(ids, images, strict=True)
        ]


def _pair(values: Sequence[float]) -> tuple[float, float]:
    return tuple(map(float, values))  # type: ignore[return-value]


def _draw(painter: ScenePainter, count: int) -> _Scenes:
    images = np.empty((count, painter.size, painter.size), np.uint8)
    labels = np.empty(count, np.int64)
    source_ids = np.full((count, painter.digits_per_image[1]), -1)
    for index in range(count):
        images[index], digits = painter.draw(index)
        labels[index] = digits[0].label
        source_ids[index, : len(digits)] = [d.source_id for d in digits]
    return _Scenes(images, labels, source_ids)


def _cached(
    painter: ScenePainter, count: int, folder: str | os.PathLike[str] | None
) -> _Scenes:
    """Read the scenes from the cache, or draw them and write it."""
    if folder is None:
        return _draw(painter, count)
    key = repr((DRAWING_VERSION, dataclasses.astuple(painter), count))
    name = hashlib.blake2b(key.encode(), digest_size=8).hexdigest()
    file = Path(folder) / f'digit_scenes_{painter.split}_{name}.npz'
    if file.exists():
        try:
            with np.load(file, allow_pickle=False) as stored:
                return _Scenes(*(stored[f] for f in _Scenes._fields))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            log_warning(
                f'{str(file)!r} cannot be read; drawing the scenes again.'
            )
    scenes = _draw(painter, count)
    file.parent.mkdir(parents=True, exist_ok=True)
    # Other processes see the whole file or none.
    part = file.with_name(f'{file.name}.{os.getpid()}.part')
    part.unlink(missing_ok=True)
    with part.open('xb') as stream:  # A link there would lead elsewhere.
        np.savez(stream, **scenes._asdict())
    part.replace(file)
    return scenes
