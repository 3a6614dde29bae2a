"""How many images a second the views of MoCo v2 take, by whom.

Measures in one run, on one thread: decoding alone, our views made by the
workers, our views of which the workers only cut the crops, the pipeline of
mmpretrain, the official recipe of torchvision, and lightly's if installed.
Everyone reads the same files and ends with the tensors that a batch is made
of. The contenders take turns, a few images each, so that whatever disturbs
the machine disturbs all alike.
"""

import contextlib
import io
import time
from collections.abc import Callable
from json import dumps
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import cv2
import torch
from contenders import Device
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope, init_default_scope
from PIL import Image
from reference_views import official_views
from roofline import fastest_device
from torch.utils.data import DataLoader, default_collate
from torchvision import transforms

from mmmoco.apis import cli, load_config
from mmmoco.apis.lookup import resolve_config
from mmmoco.datasets import AddressedSampler, ImageFolderDataset
from mmmoco.datasets.transforms.pipeline import build_pipeline
from mmmoco.registry import MODELS

Contender = Callable[[str], Any]
RECIPE = 'mocov2_r50_8xb32'
BATCH = 32
CHUNK = 16
RATIOS = (
    ('ours_cpu', 'mmpretrain'),
    ('ours_cpu', 'torchvision_official'),
    ('ours_cpu', 'lightly'),
    ('ours_cpu', 'decode'),
    ('ours_crop_only', 'mmpretrain'),
    ('ours_crop_only', 'torchvision_official'),
    ('ours_crop_only', 'decode'),
)


def ours(device_views: bool) -> tuple[list[dict[str, Any]], Config]:
    """Return our pipeline's config, and the whole one."""
    cfg = load_config(RECIPE, {'device_views': device_views})
    return cfg.train_dataloader.dataset.pipeline, cfg


def contenders(size: int) -> dict[str, Contender]:
    """Return everyone who takes part: from a path to tensors."""
    official = transforms.Compose(
        [
            *official_views(size),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )

    def torchvision_official(path: str) -> Any:
        with Image.open(path) as image:
            rgb = image.convert('RGB')
        return official(rgb), official(rgb)

    result = {
        'decode': of_path(build_pipeline([dict(type='LoadRGB')])),
        'ours_cpu': of_path(build_pipeline(ours(False)[0])),
        'ours_crop_only': of_path(build_pipeline(ours(True)[0])),
        'mmpretrain': mmpretrain(),
        'torchvision_official': torchvision_official,
    }
    with contextlib.suppress(ImportError):
        result['lightly'] = lightly(size)
    return result


def of_path(pipeline: Compose) -> Contender:
    """Return a pipeline of OpenMMLab as a function of the path."""
    return lambda path: pipeline({'img_path': path, 'sample_idx': 0})


def mmpretrain() -> Contender:
    """Return mmpretrain's own pipeline, from its own config."""
    with contextlib.redirect_stdout(io.StringIO()):
        import mmpretrain.datasets  # noqa: F401
    from mmpretrain.registry import TRANSFORMS

    file = 'mmpretrain::_base_/datasets/imagenet_bs32_mocov2.py'
    cfg = Config.fromfile(str(resolve_config(file)))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return of_path(
            Compose([TRANSFORMS.build(t) for t in cfg.train_pipeline])
        )


def lightly(size: int) -> Contender:
    """Return lightly's transform of MoCo v2.

    Raises:
        ImportError: If lightly is not installed.
    """
    from lightly.transforms import MoCoV2Transform

    both = MoCoV2Transform(input_size=size)

    def views(path: str) -> Any:
        with Image.open(path) as image:
            rgb = image.convert('RGB')
        return both(rgb)

    return views


def measure(
    runners: dict[str, Contender], paths: list[str], rounds: int
) -> dict[str, float]:
    """Return images per second of each, the median of the rounds."""
    for run in runners.values():
        for path in paths[:4]:
            run(path)
    rates: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(rounds):
        spent = dict.fromkeys(runners, 0.0)
        for first in range(0, len(paths), CHUNK):
            for name, run in runners.items():
                start = time.perf_counter()
                for path in paths[first : first + CHUNK]:
                    run(path)
                spent[name] += time.perf_counter() - start
        for name, seconds in spent.items():
            rates[name].append(len(paths) / seconds)
    return {name: median(values) for name, values in rates.items()}


def size_of(sample: Any) -> int:
    """Return the bytes of all tensors of a sample."""
    if isinstance(sample, torch.Tensor):
        return sample.nbytes
    if isinstance(sample, dict):
        sample = list(sample.values())
    if isinstance(sample, list | tuple):
        return sum(size_of(part) for part in sample)
    return 0


def device_rate(paths: list[str], rounds: int, device: str) -> float:
    """Return how many images a second the device makes views of."""
    pipeline, cfg = ours(True)
    workers = of_path(build_pipeline(pipeline))
    batch = default_collate([workers(path) for path in paths[:BATCH]])
    augmentor = MODELS.build(
        {'type': 'ViewAugmentor', **cfg.model.data_preprocessor}
    ).to(device)
    seconds = []
    for step in range(rounds + 1):
        augmentor.set_address(seed=0, step=step, rank=0)
        start = time.perf_counter()
        augmentor(dict(batch), True)
        if device != 'cpu':
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return len(batch['ids']) / median(seconds[1:])


def loader_rate(folder: str, workers: int, device_views: bool) -> float:
    """Return images per second through a DataLoader, after its start."""
    dataset = ImageFolderDataset(folder, pipeline=ours(device_views)[0])
    loader = DataLoader(
        dataset,
        batch_size=BATCH,
        num_workers=workers,
        sampler=AddressedSampler(dataset, infinite=True),
        drop_last=True,
    )
    batches = iter(loader)
    for _ in range(2 * workers):
        next(batches)
    start = time.perf_counter()
    count = max(4, 2 * len(dataset) // BATCH)
    for _ in range(count):
        next(batches)
    return count * BATCH / (time.perf_counter() - start)


def benchmark(
    *,
    images: Annotated[str, {'metavar': 'DIR'}],
    rounds: int = 5,
    json: str | None = None,
    device: Device = None,
    loader: bool = True,
) -> None:
    """How many images a second the views of MoCo v2 take, by whom.

    Args:
        images: Any folder of images.
        rounds: Rounds, in each of which all take their turns.
        json: Also write the figures there.
        device: For the device views; default: a GPU if there is one.
        loader: Leave the DataLoader out.
    """
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    init_default_scope('mmmoco')
    paths = ImageFolderDataset(images).paths
    runners = contenders(size=224)
    rates = measure(runners, paths, rounds)
    sizes = {name: size_of(run(paths[0])) for name, run in runners.items()}
    print(
        f'{len(paths)} images, one thread, median of {rounds} rounds, '
        'two views of 224 pixels\n'
    )
    print(f'{"":22}{"images/s":>9}{"bytes/image":>13}')
    for name, rate in rates.items():
        moved = f'{sizes[name]:,}' if sizes[name] else '-'
        print(f'{name:22}{rate:9.1f}{moved:>13}')
    ratios = {
        f'{ours}/{other}': rates[ours] / rates[other]
        for ours, other in RATIOS
        if other in rates
    }
    print()
    for name, ratio in ratios.items():
        print(f'{name:38}{ratio:5.2f}')
    where = device or fastest_device()
    apart = {
        f'views on the device ({where})': device_rate(paths, rounds, where)
    }
    if loader:
        for workers in (1, 2):
            for name, moved in (('ours_cpu', False), ('ours_crop_only', True)):
                apart[f'DataLoader, {workers} workers, {name}'] = loader_rate(
                    images, workers, moved
                )
    print()
    for name, rate in apart.items():
        print(f'{name:38}{rate:7.1f} images/s')
    if json:
        content = {
            'rows': [
                {'name': name, 'images_per_second': rate}
                for name, rate in rates.items()
            ],
            'ratios': ratios,
            'apart': apart,
            'bytes_per_image': sizes,
        }
        Path(json).write_text(dumps(content, indent=2) + '\n')


if __name__ == '__main__':
    cli.main(benchmark)
