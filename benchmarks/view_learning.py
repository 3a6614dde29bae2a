"""Do the fast views teach as much as the reference views?

Trains a small MoCo v2 (PlainConvNet, CIFAR-10 as image files) for equally
many steps with each kind of views and several seeds, and compares the k-NN
accuracies: |difference of means| must stay within two standard errors, or
0.5 points. Views that are broken on purpose must fail the same check.
"""

import argparse
import json
import random
import tempfile
import time
from pathlib import Path
from statistics import mean, variance
from typing import Any

import reference_views  # noqa: F401  # registers OfficialViews
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmmoco.apis import load_config
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


def config(
    args: argparse.Namespace, kind: str, seed: int, folder: Path
) -> Config:
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
        each.dataset.data_root = args.data_root
    cfg.knn.bank.dataset.ann_file = str(folder / 'train')
    cfg.knn.query.dataset.ann_file = str(folder / 'test')
    cfg.knn.features = 'backbone'
    cfg.optim_wrapper.optimizer.lr = 0.06
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=args.iters)
    cfg.param_scheduler = [
        dict(type='CosineAnnealingLR', T_max=args.iters, by_epoch=False)
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


def run(
    args: argparse.Namespace, kind: str, seed: int, folder: Path
) -> tuple[float, float]:
    """Train, and return k-NN top-1 in percent and the seconds of training."""
    cfg = config(args, kind, seed, folder)
    runner = build_runner(cfg)
    start = time.perf_counter()
    model = runner.train()
    seconds = time.perf_counter() - start
    knn, data = build_evaluation('KNN', cfg.knn, seed=0)
    metrics = knn.measure(model, data)[0].metrics
    return metrics['top1'], seconds


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


def add_arguments(parser: argparse.ArgumentParser, iters: int) -> None:
    """Add what is trained how often, on what, and where it is written."""
    parser.add_argument(
        '--data-root',
        default='data/cifar10',
        help='folder with train/<class>/* and test/<class>/*',
    )
    parser.add_argument('--iters', type=int, default=iters)
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    parser.add_argument('--bank', type=int, default=5000)
    parser.add_argument('--queries', type=int, default=5000)
    parser.add_argument('--json', help='also write the figures there')


def main() -> None:
    """Run all kinds and seeds, print the table."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or '').split('\n\n')[0]
    )
    add_arguments(parser, iters=250)
    parser.add_argument(
        '--merge',
        nargs='+',
        metavar='JSON',
        help='train nothing; put runs with different seeds together',
    )
    args = parser.parse_args()
    if args.merge:
        parts = [json.loads(Path(file).read_text()) for file in args.merge]
        args.seeds = [seed for part in parts for seed in part['seeds']]
        for name in ('iters', 'bank', 'queries'):
            (value,) = {part[name] for part in parts}
            setattr(args, name, value)
        report(
            {
                kind: [x for part in parts for x in part['top1'][kind]]
                for kind in KINDS
            },
            args,
        )
        return
    torch.set_num_threads(1)
    init_default_scope('mmmoco')
    top1: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_lists(
            args.data_root,
            folder,
            {'train': args.bank, 'test': args.queries},
        )
        for seed in args.seeds:
            for kind in KINDS:
                figure, seconds = run(args, kind, seed, folder)
                top1[kind].append(figure)
                print(
                    f'{kind:14} seed {seed}: k-NN {figure:.2f} % '
                    f'({seconds:.0f} s)',
                    flush=True,
                )
    report(top1, args)


def report(top1: dict[str, list[float]], args: argparse.Namespace) -> None:
    """Print the table; write it if asked."""
    checks = {
        kind: compare(top1['reference'], figures)
        for kind, figures in top1.items()
        if kind != 'reference' and len(figures) > 1
    }
    print(
        f'\nk-NN top-1 after {args.iters} steps, {len(args.seeds)} seeds, '
        f'{args.bank} bank images, {args.queries} queries'
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
    if args.json:
        content = {
            'iters': args.iters,
            'bank': args.bank,
            'queries': args.queries,
            'seeds': args.seeds,
            'top1': top1,
            'checks': checks,
        }
        Path(args.json).write_text(json.dumps(content, indent=2) + '\n')


if __name__ == '__main__':
    main()
