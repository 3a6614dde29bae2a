"""From JPEG files on disk to optimizer steps: images per second, by whom.

Everyone reads the same files with the same number of workers, by the views
and in the precision that the code base uses by default, and takes the steps
of contenders.py, in a process of its own. They take turns, in another order
every round, after one that is not counted; each starts its workers anew, and
its clock with the first batch. Rates are medians over the rounds, ratios
medians of the rounds' ratios. Also the fraction of the time that the step
waited for data, the share of the rate of a matrix product that was reached
(roofline.py; the same precision for all, that of ``--fast``) and, on a GPU,
its utilisation.

    python benchmarks/end_to_end.py --images data/cifar10/train --size 32
"""

import contextlib
import io
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from json import dumps
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import cv2
import torch
from contenders import MODELS_TO_TRAIN, Device, Model, Setting, build, fast
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope
from own_process import OwnProcess, prepare
from PIL import Image
from reference_views import official_views
from roofline import (
    fastest_device,
    flops_of,
    machine,
    matmul_rate,
    synchronise,
)
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import transforms
from train_step import in_turns, times_as_fast

from mmmoco.apis import cli, load_config
from mmmoco.apis.lookup import resolve_config
from mmmoco.datasets import ImageFolderDataset
from mmmoco.datasets.transforms.pipeline import build_pipeline
from mmmoco.registry import MODELS

RECIPE = 'mocov2_r50_8xb32'
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
View = Callable[[str], Any]
#: Whose views and whose step; ours also with the photometric operations on
#: the device, mmpretrain's also with the settings of ours.
PAIRS = {
    'ours': ('ours', 'ours'),
    'ours_device_views': ('ours_device_views', 'ours'),
    'mmpretrain': ('mmpretrain', 'mmpretrain'),
    'mmpretrain_same_settings': ('mmpretrain', 'mmpretrain_same_settings'),
    'official_transcription': ('official', 'official_transcription'),
    'lightly': ('lightly', 'lightly'),
}


class Files(Dataset[Any]):
    """Paths, each passed through a function."""

    def __init__(self, paths: list[str], view: View) -> None:
        self.paths, self.view = paths, view

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
        return self.view(self.paths[index])


@dataclass
class Source:
    """How files become two batches of views on the device.

    Attributes:
        view: Done by the workers.
        finish: Done with a batch where the model is: its two views.
    """

    view: View
    finish: Callable[[Any], tuple[Tensor, Tensor]]


def ours(setting: Setting, device_views: bool) -> Source:
    """Our views: uint8 crops, normalised on the device."""
    cfg = load_config(RECIPE, {'device_views': device_views})
    pipeline = _resized(cfg.train_dataloader.dataset.pipeline, setting.image)
    compose = build_pipeline(pipeline)
    augmentor: Any = MODELS.build(
        {
            'type': 'ViewAugmentor',
            **_resized(cfg.model.data_preprocessor, setting.image),
        }
    ).to(setting.device)
    augmentor.set_address(seed=0, step=0, rank=0)

    def finish(batch: Any) -> tuple[Tensor, Tensor]:
        inputs = augmentor(batch, True)['inputs']
        return inputs['view_q'], inputs['view_k']

    return Source(
        lambda path: compose({'img_path': path, 'sample_idx': 0}), finish
    )


def mmpretrain(setting: Setting) -> Source:
    """Mmpretrain's pipeline and preprocessor, from its own config."""
    with contextlib.redirect_stdout(io.StringIO()):
        import mmpretrain.datasets
        import mmpretrain.models  # noqa: F401
    from mmpretrain.registry import MODELS as THEIRS
    from mmpretrain.registry import TRANSFORMS

    file = 'mmpretrain::_base_/datasets/imagenet_bs32_mocov2.py'
    cfg = Config.fromfile(str(resolve_config(file)))
    steps = _resized(cfg.train_pipeline, setting.image)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        compose = Compose([TRANSFORMS.build(step) for step in steps])
        preprocessor: Any = THEIRS.build(
            {'type': 'SelfSupDataPreprocessor', **cfg.data_preprocessor}
        ).to(setting.device)

    def finish(batch: Any) -> tuple[Tensor, Tensor]:
        first, second = preprocessor(batch, True)['inputs']
        return first, second

    return Source(lambda path: compose({'img_path': path}), finish)


def of_transform(setting: Setting, both: Callable[[Any], Any]) -> Source:
    """Return a source of a function of a PIL image."""

    def view(path: str) -> Any:
        with Image.open(path) as image:
            first, second = both(image.convert('RGB'))[:2]
        return first, second

    def finish(batch: Any) -> tuple[Tensor, Tensor]:
        first, second = (x.to(setting.device) for x in batch)
        return first, second

    return Source(view, finish)


def source(name: str, setting: Setting) -> Source:
    """Return whose views they are.

    Raises:
        ImportError: If lightly is asked for and not installed.
    """
    if name.startswith('ours'):
        return ours(setting, name == 'ours_device_views')
    if name == 'mmpretrain':
        return mmpretrain(setting)
    if name == 'lightly':
        from lightly.transforms import MoCoV2Transform

        return of_transform(setting, MoCoV2Transform(setting.image))
    official = transforms.Compose(
        [
            *official_views(setting.image),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    return of_transform(setting, lambda x: (official(x), official(x)))


def collate(name: str) -> Any:
    """Return how samples become a batch; mmpretrain's has no tensors alone."""
    if name != 'mmpretrain':
        return None
    from mmengine.dataset import default_collate

    return default_collate


class Contender:
    """Views, loader and step of one code base."""

    def __init__(
        self, name: str, setting: Setting, paths: list[str], workers: int
    ) -> None:
        # As OpenMMLab's configs and ours do in their workers.
        cv2.setNumThreads(0)
        torch.manual_seed(0)
        views, stepper = PAIRS[name]
        self.setting, self.source = setting, source(views, setting)
        self.step = build(stepper, setting).step
        self.files = Files(paths, self.source.view)
        self.batch, self.device = setting.batch, setting.device
        self.options: dict[str, Any] = dict(
            batch_size=setting.batch,
            num_workers=workers,
            # What Linux does; a process of its own would hand on its "spawn".
            multiprocessing_context='fork' if workers else None,
            pin_memory=setting.device == 'cuda',
            collate_fn=collate(views),
        )

    def round(self, steps: int) -> tuple[float, float]:
        """Return seconds of so many steps, and the part spent waiting.

        The clock starts when the first batch is there. The loader makes no
        more batches than are used.
        """
        sampler = RandomSampler(
            self.files, replacement=True, num_samples=steps * self.batch
        )
        batches = iter(DataLoader(self.files, sampler=sampler, **self.options))
        batch = next(batches)
        waited, start = 0.0, time.perf_counter()
        for step in range(steps):
            if step > 0:
                asked = time.perf_counter()
                batch = next(batches)
                waited += time.perf_counter() - asked
            self.step(*self.source.finish(batch))
        synchronise(self.device)
        seconds = time.perf_counter() - start
        if self.device == 'cuda':
            torch.cuda.empty_cache()  # for the others' processes
        return seconds, waited

    def flops(self) -> int:
        """Count the operations of one step."""
        side = self.setting.image
        views = torch.randn(2, self.batch, 3, side, side).to(self.device)
        return flops_of(lambda: self.step(*views))


def _resized(config: Any, size: int) -> Any:
    """Return a config whose crops have another size."""
    if isinstance(config, dict):
        new = {key: _resized(value, size) for key, value in config.items()}
        kind = str(new.get('type', ''))
        if kind.endswith('RandomResizedCrop'):
            # mmcv's calls the side scale, ours calls it size.
            new['size' if kind.startswith('Fast') else 'scale'] = size
        return new
    if isinstance(config, list | tuple):
        return [_resized(value, size) for value in config]
    return config


def utilisation() -> float | None:
    """Return how busy the GPU is, in percent; None without nvidia-ml-py."""
    if not torch.cuda.is_available():
        return None
    with contextlib.suppress(ModuleNotFoundError):
        return float(torch.cuda.utilization())
    return None


def benchmark(
    *,
    images: Annotated[str, {'metavar': 'DIR'}],
    model: Model = 'resnet18_cifar',
    size: int | None = None,
    batch: int | None = None,
    keys: int = 65536,
    workers: int = 2,
    rounds: int = 3,
    steps: int = 8,
    device: Device = None,
    json: str | None = None,
) -> None:
    """From JPEG files on disk to optimizer steps: images per second, by whom.

    Args:
        images: Any folder of images.
        model: What is trained.
        size: Side of the views; default: the model's.
        batch: Images of a step; default: the model's.
        keys: Length of the queue.
        workers: Processes that load.
        rounds: Rounds, in each of which all take their turns.
        steps: Steps in a round.
        device: Where; default: a GPU if there is one.
        json: Also write the figures there.
    """
    prepare()
    where = device or fastest_device()
    paths = ImageFolderDataset(images).paths
    setting = MODELS_TO_TRAIN[model]
    setting = replace(
        setting,
        image=size or setting.image,
        batch=batch or setting.batch,
        keys=keys,
        device=where,
    )
    if len(paths) < setting.batch:
        raise ValueError(
            f'--images {images} holds {len(paths)} images, less than a '
            f'batch of {setting.batch}: give more images or a smaller --batch.'
        )
    runners: dict[str, OwnProcess] = {}
    for name in PAIRS:
        with contextlib.suppress(ImportError):
            runners[name] = OwnProcess(
                partial(Contender, name, setting, paths, workers)
            )
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    waits: dict[str, list[float]] = {name: [] for name in runners}
    busy: dict[str, list[float]] = {name: [] for name in runners}
    for runner in runners.values():
        runner.call('round', 1)
    for name in in_turns(runners, rounds):
        whole, waited = runners[name].call('round', steps)
        seconds[name].append(whole / steps)
        waits[name].append(waited / whole)
        used = utilisation()
        if used is not None:
            busy[name].append(used)
    flops = runners['ours'].call('flops')
    limit = flops / matmul_rate(where, fast(setting).dtype)
    rows = [
        {
            'name': name,
            'images_per_second': setting.batch / median(seconds[name]),
            'data_wait': median(waits[name]),
            'share_of_limit': limit / median(seconds[name]),
            'gpu_utilisation': median(busy[name]) if busy[name] else None,
        }
        for name in runners
    ]
    ratios = {
        f'{name}/{other}': times_as_fast(seconds[name], seconds[other])
        for name, other in (
            ('ours', 'mmpretrain'),
            ('ours', 'official_transcription'),
            ('ours', 'lightly'),
            ('ours', 'mmpretrain_same_settings'),
            ('ours_device_views', 'mmpretrain'),
        )
        if other in seconds
    }
    print(
        f'{model}, {len(paths)} files, {setting.image} pixels, batch '
        f'{setting.batch}, K = {setting.keys}, {workers} workers; '
        f'{machine(where)}; median of {rounds} rounds of {steps} steps\n'
    )
    print(
        f'{"":24}{"images/s":>10}{"data wait":>11}{"of the limit":>14}'
        f'{"GPU busy":>10}'
    )
    for row in rows:
        used = row['gpu_utilisation']
        print(
            f'{row["name"]:24}{row["images_per_second"]:10.1f}'
            f'{row["data_wait"]:11.1%}{row["share_of_limit"]:14.1%}'
            f'{"–" if used is None else f"{used:.0f} %":>10}'
        )
    print()
    for name, ratio in ratios.items():
        print(f'{name:40}{ratio:6.2f}')
    if json:
        content = {'machine': machine(where), 'rows': rows, 'ratios': ratios}
        Path(json).write_text(dumps(content, indent=2) + '\n')


if __name__ == '__main__':
    cli.main(benchmark)
