"""Does ``--fast`` learn what the plain settings learn?

Trains the small MoCo v2 of view_learning.py with either, on the same draws:
the mean loss of the last 50 steps may differ by 1 % for each seed, and the
means of the k-NN accuracies by two standard errors, or 0.5 points.

    python benchmarks/fast_learning.py --data-root data/cifar10
"""

import tempfile
from collections.abc import Sequence
from json import dumps
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from mmengine.registry import init_default_scope
from view_learning import Plan, compare, config, top1_of, write_lists

from mmmoco.apis import cli
from mmmoco.apis.config.adapt import use_precision
from mmmoco.apis.training.runner import build_runner

LAST = 50
PATHS = ('plain', 'fast', 'bfloat16')


def run(
    plan: Plan, path: str, seed: int, folder: Path
) -> tuple[list[float], float]:
    """Train; return the loss of every step and k-NN top-1 in percent."""
    cfg = config(plan, 'fast, workers', seed, folder)
    cfg.model.channels_last = False
    use_precision(cfg, amp=path == 'bfloat16', fast=path == 'fast')
    runner = build_runner(cfg)
    losses = []
    wrapper: Any = runner.model
    forward = wrapper.train_step

    def noted(*a: Any, **k: Any) -> Any:
        result = forward(*a, **k)
        losses.append(float(result['loss'].detach()))
        return result

    wrapper.train_step = noted
    model = runner.train()
    return losses, top1_of(cfg, model)


def benchmark(
    *,
    data_root: str = 'data/cifar10',
    iters: int = 200,
    seeds: Sequence[int] = (0, 1, 2),
    bank: int = 5000,
    queries: int = 5000,
    json: str | None = None,
    bfloat16: bool = False,
) -> None:
    """Does --fast learn what the plain settings learn?

    Args:
        data_root: Folder with train/<class>/* and test/<class>/*.
        iters: Steps of a training.
        seeds: One training of each path for each.
        bank: Labelled images of the k-NN.
        queries: Images that it classifies.
        json: Also write the figures there.
        bfloat16: Mixed precision too, where --fast would not choose it.
    """
    torch.set_num_threads(1)
    init_default_scope('mmmoco')
    plan = Plan(data_root, iters, bank, queries)
    paths = PATHS if bfloat16 else PATHS[:2]
    losses: dict[str, list[float]] = {path: [] for path in paths}
    top1: dict[str, list[float]] = {path: [] for path in paths}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = {'train': bank, 'test': queries}
        write_lists(data_root, folder, sizes)
        for seed in seeds:
            for path in paths:
                curve, figure = run(plan, path, seed, folder)
                losses[path].append(mean(curve[-LAST:]))
                top1[path].append(figure)
                print(
                    f'{path:10} seed {seed}: loss {losses[path][-1]:.4f}, '
                    f'k-NN {figure:.2f} %',
                    flush=True,
                )
    checks = {}
    for path in paths[1:]:
        apart = max(
            abs(a / b - 1)
            for a, b in zip(losses[path], losses['plain'], strict=True)
        )
        check = compare(top1['plain'], top1[path])
        checks[path] = {**check, 'loss': apart, 'same_loss': apart <= 0.01}
        print(
            f'{path}: loss differs by {apart:.2%} at most (bound 1 %), k-NN '
            f'by {check["difference"]:+.2f} (bound {check["bound"]:.2f})'
        )
    if json:
        content = {'losses': losses, 'top1': top1, 'checks': checks}
        Path(json).write_text(dumps(content, indent=2) + '\n')


if __name__ == '__main__':
    cli.main(benchmark)
