"""DAVIS-2017 label propagation: the job behind ``tools/davis_seg.py``."""

import argparse
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmengine.logging import MMLogger
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mmmoco.apis import cli
from mmmoco.apis.config.files import load_config
from mmmoco.apis.probing.protocol import same_eyes
from mmmoco.datasets.transforms import open_image
from mmmoco.engine import checkpoint_io
from mmmoco.engine.results import append_result
from mmmoco.evaluation.video import propagate, score_video, to_index

from . import object_data
from .features import ModelFeatures, load_model

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
    if height > width:
        return _cut(SHORT_SIDE * height / width), SHORT_SIDE
    return SHORT_SIDE, _cut(SHORT_SIDE * width / height)


def _cut(side: float) -> int:
    return int(side // MULTIPLE * MULTIPLE)


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
    features: ModelFeatures,
    video: Video,
    context: int = 7,
    radius: int = 12,
    topk: int = 5,
    temperature: float = 0.1,
) -> Iterator[NDArray[np.uint8]]:
    """Yield the index image of every frame, the given first one included.

    Args:
        features: Dense features; sees frame after frame.
        video: The sequence.
        context: Last frames that count beside the first.
        radius: Half the side of the window, in patches.
        topk: Sources of a patch.
        temperature: Divides the cosines.
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
    for soft in propagate(
        frames(), labels, context, radius, topk, temperature
    ):
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
    target.mkdir(parents=True, exist_ok=True)
    with open_image(video.labels[0], str(video.labels[0])) as given:
        palette = given.getpalette()
    for path, index in zip(video.frames, found, strict=True):
        image = Image.fromarray(index, mode='P')
        if palette:
            image.putpalette(palette)
        content = io.BytesIO()
        image.save(content, 'PNG')
        place = target / f'{path.stem}.png'
        checkpoint_io.write_bytes(place, content.getvalue())


def parser() -> argparse.ArgumentParser:
    """Return the command line of ``tools/davis_seg.py``."""
    result = argparse.ArgumentParser(
        prog='davis_seg.py',
        description='Label propagation on DAVIS 2017 with frozen features '
        '(the protocol of DINO); writes PNGs, and J and F where the '
        'annotations are there.',
        epilog='Example: python tools/davis_seg.py mmc_vit-b_4xb64_400e '
        'work_dirs/mmc/epoch_400.pth data/DAVIS',
    )
    result.add_argument('config', help='path, name, or package::path')
    result.add_argument('checkpoint', help='file of a pre-training run')
    result.add_argument('root', help='folder of DAVIS')
    result.add_argument('--split', default='val', help='default: val')
    result.add_argument('--resolution', default='480p', help='default: 480p')
    result.add_argument('--context', type=int, default=7)
    result.add_argument('--radius', type=int, default=12)
    result.add_argument('--topk', type=int, default=5)
    result.add_argument('--temperature', type=float, default=0.1)
    result.add_argument('--encoder', choices=('query', 'key'), default='query')
    cli.add_work_dir(result)
    cli.add_cfg_options(result)
    cli.add_debug(result)
    return result


def evaluate(args: argparse.Namespace) -> None:
    """Segment a split as the command line says."""
    logger = MMLogger.get_instance('mmmoco', log_level='INFO')
    cfg = load_config(args.config, args.cfg_options)
    root = Path(args.root)
    listing = root / 'ImageSets' / '2017' / f'{args.split}.txt'
    if not listing.is_file():
        raise FileNotFoundError(f'{str(listing)!r} does not exist.')
    videos = [
        Video(root, name, args.resolution)
        for name in listing.read_text().split()
    ]
    options = dict(
        context=args.context,
        radius=args.radius,
        topk=args.topk,
        temperature=args.temperature,
    )
    eyes = same_eyes(cfg, args.checkpoint)
    model = load_model(cfg, args.checkpoint)
    patch = int(cfg.model.backbone.get('patch_size', 16))
    features = ModelFeatures(model, patch, args.encoder)
    folder = Path(object_data.work_dir_of(args))
    j: list[float] = []
    f: list[float] = []
    for video in videos:
        found = list(segment(features, video, **options))
        write_results(folder / 'davis', video, found)
        truth = video.truth()
        if truth is not None:
            scores = score_video(np.stack(found), truth)
            j += scores.j
            f += scores.f
            logger.info(
                f'{video.name}: J {100 * np.mean(scores.j):.1f}, '
                f'F {100 * np.mean(scores.f):.1f}'
            )
    logger.info(f'PNGs in {str(folder / "davis")!r}')
    if not j:
        return
    metrics = {
        'j_mean': 100 * float(np.mean(j)),
        'f_mean': 100 * float(np.mean(f)),
    }
    metrics['jf_mean'] = (metrics['j_mean'] + metrics['f_mean']) / 2
    logger.info(
        f'{len(j)} objects: J&F {metrics["jf_mean"]:.1f}, '
        f'J {metrics["j_mean"]:.1f}, F {metrics["f_mean"]:.1f}'
    )
    append_result(
        str(folder),
        task='DAVIS 2017',
        protocol=options
        | {
            'split': args.split,
            'encoder': args.encoder,
            'videos': len(videos),
        },
        metrics=metrics,
        cfg=cfg,
        checkpoint=args.checkpoint,
        remarks={'eyes': eyes},
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``tools/davis_seg.py``."""
    args = parser().parse_args(argv)
    cli.run(lambda: evaluate(args), 'davis_seg.py', args.debug)
