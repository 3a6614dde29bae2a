"""Label propagation on DAVIS 2017."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mmmoco.datasets.transforms.loading import open_image
from mmmoco.engine import checkpoint_io
from mmmoco.evaluation.video import propagate, score_video, to_index
from mmmoco.messages import log_info
from mmmoco.progress import track

from .features import ModelFeatures

SHORT_SIDE, MULTIPLE = 480, 64


class Video:
    """One sequence of DAVIS 2017.

    Args:
        root: Folder with ``JPEGImages``, ``Annotations``, ``ImageSets``.
        name: The sequence.
        resolution: Folder below the first two.

    Raises:
        FileNotFoundError: If frames, or the annotation of the first one,
            are missing.
    """

    def __init__(
        self, root: Path, name: str, resolution: str = '480p'
    ) -> None:
        folder = root / 'JPEGImages' / resolution / name
        self.name, self.frames = name, sorted(folder.glob('[!.]*.jpg'))
        labels = root / 'Annotations' / resolution / name
        self.labels = [labels / f'{p.stem}.png' for p in self.frames]
        if not self.frames or not self.labels[0].is_file():
            raise FileNotFoundError(
                f'{str(folder)!r} and {str(labels)!r} must hold the frames '
                'and at least the annotation of the first one.'
            )

    def truth(self) -> NDArray[np.uint8] | None:
        """Return all annotations, T×H×W, if there are all."""
        if not all(path.is_file() for path in self.labels):
            return None
        return np.stack([read_index(path) for path in self.labels])


def read_index(path: Path) -> NDArray[np.uint8]:
    """Return the indices of a palette PNG, H×W."""
    with open_image(path, str(path)) as image:
        return np.asarray(image, dtype=np.uint8)


def network_size(height: int, width: int) -> tuple[int, int]:
    """Return the size that frames are resized to, as DINO has it.

    The short side becomes 480, the other keeps the ratio, and is cut to a
    multiple of 64; of a square, the width is the other.
    """
    short, long = sorted((height, width))
    other = int(SHORT_SIDE * long / short // MULTIPLE * MULTIPLE)
    return (other, SHORT_SIDE) if height > width else (SHORT_SIDE, other)


def resize_index(
    index: NDArray[np.uint8], size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Return an index image of another size, H×W, as DINO resizes it.

    Each pixel takes what lies at its centre: PIL's nearest. PyTorch's
    ``nearest`` and OpenCV's take the corner, half a patch away.
    """
    resized = Image.fromarray(index).resize(
        size[::-1], Image.Resampling.NEAREST
    )
    return np.asarray(resized, dtype=np.uint8)


def segment(
    features: ModelFeatures, video: Video, **options: Any
) -> Iterator[NDArray[np.uint8]]:
    """Yield the index image of every frame, the given first one included.

    Args:
        features: Dense features; sees frame after frame.
        video: The sequence.
        **options: Of :func:`mmmoco.evaluation.video.propagate`.
    """
    first = read_index(video.labels[0])
    size = network_size(*first.shape)

    def frames() -> Iterator[Tensor]:
        for path in video.frames:
            with open_image(path, str(path)) as image:
                pixels = np.asarray(image.convert('RGB'))
            resized = cv2.resize(
                pixels, size[::-1], interpolation=cv2.INTER_LINEAR
            )
            (maps,) = features([np.asarray(resized, dtype=np.uint8)])
            yield maps[0]

    features.size = size
    grid = next(frames()).shape[1:]
    known = np.where(first == 255, 0, first).astype(np.uint8)
    small = resize_index(known, (grid[0], grid[1]))
    labels = F.one_hot(torch.from_numpy(small.copy()).long())
    labels = labels.permute(2, 0, 1).float()
    yield first
    for soft in propagate(frames(), labels, **options):
        yield resize_index(
            to_index(soft, size), (first.shape[0], first.shape[1])
        )


def write_results(
    folder: Path, video: Video, found: Sequence[NDArray[np.uint8]]
) -> None:
    """Write PNGs as the official evaluation reads them.

    ``folder/<sequence>/<frame>.png``, with the palette of the annotation.
    """
    target = folder / video.name
    with open_image(video.labels[0], str(video.labels[0])) as given:
        palette = given.getpalette()
    for path, index in zip(video.frames, found, strict=True):
        image = Image.fromarray(index, mode='P')
        if palette:
            image.putpalette(palette)
        place = target / f'{path.stem}.png'
        checkpoint_io.replace(place, partial(image.save, format='PNG'))


def videos_of(root: str, split: str, resolution: str) -> list[Video]:
    """Return the sequences of a split.

    Raises:
        FileNotFoundError: If its list, or what it names, is missing.
    """
    listing = Path(root) / 'ImageSets' / '2017' / f'{split}.txt'
    if not listing.is_file():
        raise FileNotFoundError(f'{str(listing)!r} does not exist.')
    names = listing.read_text().split()
    return [Video(Path(root), name, resolution) for name in names]


def evaluate_videos(
    features: ModelFeatures,
    videos: Sequence[Video],
    folder: Path,
    options: Mapping[str, Any],
) -> dict[str, float]:
    """Segment videos, write their PNGs, and score what has annotations.

    Args:
        features: Dense features.
        videos: The sequences.
        folder: Gets ``davis/``.
        options: Of :func:`mmmoco.evaluation.video.propagate`.

    Returns:
        Means in percent; empty without annotations.
    """
    j: list[float] = []
    f: list[float] = []
    for video in track(videos, 'Videos'):
        found = list(segment(features, video, **options))
        write_results(folder / 'davis', video, found)
        truth = video.truth()
        if truth is not None:
            scores = score_video(np.stack(found), truth)
            j += scores.j
            f += scores.f
            log_info(
                f'{video.name}: J {100 * np.mean(scores.j):.1f}, '
                f'F {100 * np.mean(scores.f):.1f}'
            )
    log_info(f'PNGs in {str(folder / "davis")!r}')
    if not j:
        return {}
    means = 100 * float(np.mean(j)), 100 * float(np.mean(f))
    both = sum(means) / 2
    log_info(
        f'{len(j)} objects: J&F {both:.1f}, J {means[0]:.1f}, F {means[1]:.1f}'
    )
    return {'j_mean': means[0], 'f_mean': means[1], 'jf_mean': both}
