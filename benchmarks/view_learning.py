"""Do the fast views teach as much as the reference views?

Trains a small MoCo v2 (PlainConvNet, CIFAR-10 as image files) for equally
many steps with each kind of views and several seeds, and compares the k-NN
accuracies: |difference of means| must stay within two standard errors, or
0.5 points. Views that are broken on purpose must fail the same check.
"""

import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from json import dumps, loads
from pathlib import Path
from statistics import mean, variance
from typing import Annotated, Any

import reference_views  # noqa: F401  # registers OfficialViews
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmmoco.apis import cli, load_config
from mmmoco.apis.config.device_views import move_views
from mmmoco.apis.training.runner import build_runner
from mmmoco.engine.evaluation import build_evaluation

JITTER = dict(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)
CROP = dict(size=32, scale=(0.2, 1.0))
BLUR = (0.1, 2.0)


def reference() -> list[dict[str, Any]]:
    """MoCo v2's views by torchvision and PIL, as published."""
    return [dict(type='ToPIL'), dict(type='OfficialViews', size=32)]


def fast() -> list[dict[str, Any]]:
    """The same by our operations."""
    return [
        dict(type='FastRandomResizedCrop', **CROP),
        dict(type='FastColorJitter', **JITTER, prob=0.8),
        dict(type='FastGrayscale', prob=0.2),
        dict(type='FastGaussianBlur', sigma=BLUR, prob=0.5),
        dict(type='FastFlip', horizontal=0.5),
    ]


def broken() -> list[dict[str, Any]]:
    """Views without crop and without colours: two of them are nearly one."""
    return [
        dict(
            type='FastRandomResizedCrop',
            size=32,
            scale=(1.0, 1.0),
            ratio=(1.0, 1.0),
        ),
        dict(type='FastFlip', horizontal=0.5),
    ]


#: Name → (operations of each view, made on the device).
KINDS = {
    'reference': (reference, False),
    'fast, workers': (fast, False),
    'fast, device': (fast, True),
    'broken': (broken, False),
}


@dataclass(frozen=True)
class Plan:
    """What is trained how often.

    Attributes:
        data_root: Folder with train/<class>/* and test/<class>/*.
        iters: Steps of a training.
        bank: Labelled images of the k-NN.
        queries: Images that it classifies.
    """

    data_root: str
    iters: int
    bank: int
    queries: int


def config(plan: Plan, kind: str, seed: int, folder: Path) -> Config:
    """Return the config of one run."""
    make, on_device = KINDS[kind]
    cfg = load_config('mocov2_r18_1xb512_cifar10')
    cfg.model = dict(
        type='MoCoV2',
        backbone=dict(
            type='PlainConvNet',
            strides=(2, 1, 2, 2),
            norm_cfg=dict(type='SplitBN', num_splits=4),
        ),
        neck=dict(
            type='mmpretrain.MoCoV2Neck',
            in_channels=128,
            hid_channels=128,
            out_channels=64,
        ),
        dictionary=dict(type='Queue', size=2048, feat_dim=64),
        loss=dict(type='InfoNCE', temperature=0.1),
        m=0.99,
        channels_last=True,
        data_preprocessor=cfg.model.data_preprocessor,
    )
    loader = cfg.train_dataloader
    loader.batch_size = 128
    loader.sampler.infinite = True
    views = dict(view_q=make(), view_k=make())
    loader.dataset.pipeline = [
        dict(type='LoadRGB'),
        dict(type='Views', views=views),
    ]
    for each in (loader, cfg.knn.bank, cfg.knn.query):
        each.num_workers = 0
        each.persistent_workers = False
        each.dataset.data_root = plan.data_root
    cfg.knn.bank.dataset.ann_file = str(folder / 'train')
    cfg.knn.query.dataset.ann_file = str(folder / 'test')
    cfg.knn.features = 'backbone'
    cfg.optim_wrapper.optimizer.lr = 0.06
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=plan.iters)
    cfg.param_scheduler = [
        dict(type='CosineAnnealingLR', T_max=plan.iters, by_epoch=False)
    ]
    cfg.custom_hooks = [
        hook for hook in cfg.custom_hooks if hook.type != 'KNNHook'
    ]
    cfg.default_hooks.checkpoint = None
    cfg.log_processor.by_epoch = False
    cfg.log_level = 'WARNING'
    cfg.randomness = dict(seed=seed)
    cfg.work_dir = str(folder / 'run')
    cfg.device_views = on_device
    cfg = Config(cfg.to_dict())
    move_views(cfg)
    return cfg


def write_lists(data_root: str, folder: Path, sizes: dict[str, int]) -> None:
    """List a random part of each split: ``path label`` lines."""
    for split, size in sizes.items():
        root = Path(data_root, split).resolve()
        classes = sorted(p for p in root.iterdir() if p.is_dir())
        lines = [
            f'{path} {label}'
            for label, each in enumerate(classes)
            for path in sorted(each.iterdir())
        ]
        random.Random(0).shuffle(lines)
        (folder / split).write_text('\n'.join(lines[:size]))


def run(plan: Plan, kind: str, seed: int, folder: Path) -> tuple[float, float]:
    """Train, and return k-NN top-1 in percent and the seconds of training."""
    cfg = config(plan, kind, seed, folder)
    runner = build_runner(cfg)
    start = time.perf_counter()
    model = runner.train()
    seconds = time.perf_counter() - start
    return top1_of(cfg, model), seconds


def top1_of(cfg: Config, model: Any) -> float:
    """Return the k-NN top-1 of a trained model, in percent."""
    knn, data = build_evaluation('KNN', cfg.knn, seed=0)
    return knn.measure(model, data)[0].metrics['top1']


def compare(reference: list[float], other: list[float]) -> dict[str, Any]:
    """Hold the difference of two means against its bound."""
    difference = mean(other) - mean(reference)
    error = (
        variance(reference) / len(reference) + variance(other) / len(other)
    ) ** 0.5
    bound = max(2 * error, 0.5)
    return dict(
        difference=difference, bound=bound, equal=abs(difference) <= bound
    )


def benchmark(
    *,
    data_root: str = 'data/cifar10',
    iters: int = 250,
    seeds: Sequence[int] = (0, 1, 2),
    bank: int = 5000,
    queries: int = 5000,
    json: str | None = None,
    merge: Annotated[Sequence[str], {'metavar': 'JSON'}] = (),
) -> None:
    """Do the fast views teach as much as the reference views?

    Args:
        data_root: Folder with train/<class>/* and test/<class>/*.
        iters: Steps of a training.
        seeds: One training of each kind for each.
        bank: Labelled images of the k-NN.
        queries: Images that it classifies.
        json: Also write the figures there.
        merge: Train nothing; put runs with different seeds together.
    """
    plan = Plan(data_root, iters, bank, queries)
    top1: dict[str, list[float]] = {kind: [] for kind in KINDS}
    if merge:
        parts = [loads(Path(file).read_text()) for file in merge]
        seeds = [seed for part in parts for seed in part['seeds']]
        for name in ('iters', 'bank', 'queries'):
            (value,) = {part[name] for part in parts}
            plan = replace(plan, **{name: value})
        for kind in KINDS:
            top1[kind] = [x for part in parts for x in part['top1'][kind]]
        report(top1, plan, seeds, json)
        return
    torch.set_num_threads(1)
    init_default_scope('mmmoco')
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_lists(data_root, folder, {'train': bank, 'test': queries})
        for seed in seeds:
            for kind in KINDS:
                figure, seconds = run(plan, kind, seed, folder)
                top1[kind].append(figure)
                print(
                    f'{kind:14} seed {seed}: k-NN {figure:.2f} % '
                    f'({seconds:.0f} s)',
                    flush=True,
                )
    report(top1, plan, seeds, json)


def report(
    top1: dict[str, list[float]],
    plan: Plan,
    seeds: Sequence[int],
    file: str | None,
) -> None:
    """Print the table; write it if asked."""
    checks = {
        kind: compare(top1['reference'], figures)
        for kind, figures in top1.items()
        if kind != 'reference' and len(figures) > 1
    }
    print(
        f'\nk-NN top-1 after {plan.iters} steps, {len(seeds)} seeds, '
        f'{plan.bank} bank images, {plan.queries} queries'
    )
    for kind, figures in top1.items():
        line = f'{kind:14} {mean(figures):6.2f} %'
        if kind in checks:
            check = checks[kind]
            line += (
                f'  difference {check["difference"]:+.2f}, bound '
                f'{check["bound"]:.2f}: '
                + ('equal' if check['equal'] else 'NOT equal')
            )
        print(line)
    if file:
        content = {
            'iters': plan.iters,
            'bank': plan.bank,
            'queries': plan.queries,
            'seeds': list(seeds),
            'top1': top1,
            'checks': checks,
        }
        Path(file).write_text(dumps(content, indent=2) + '\n')


if __name__ == '__main__':
    cli.main(benchmark)
