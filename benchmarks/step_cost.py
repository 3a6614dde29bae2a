"""How the cost of a step grows with batch, queue, image and model.

Seconds of our own step (contenders.py, as ``--fast`` sets it up), its
floating-point operations as torch counts them, and the physical limit:
operations divided by the rate of one large matrix product in the same
precision (roofline.py). The points take turns; figures are medians over the
rounds.

    python benchmarks/step_cost.py --json cost.json --figure cost.png
"""

from dataclasses import asdict, dataclass, replace
from functools import partial
from json import dumps
from pathlib import Path
from statistics import median

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import torch
from contenders import MODELS_TO_TRAIN, Device, Setting, build, fast
from own_process import prepare
from roofline import fastest_device, machine, matmul_rate
from train_step import Timed, measure, views

from mmmoco.apis import cli


@dataclass
class Point:
    """One setting on one axis.

    Attributes:
        axis: What is varied.
        value: Its value.
        seconds: Of a step.
        flops: Of a step, a multiplication and an addition counting as two.
        limit: Seconds that they take at the rate of the matrix product.
    """

    axis: str
    value: str
    seconds: float
    flops: int
    limit: float


def settings(base: Setting) -> list[tuple[str, str, Setting]]:
    """Return what is measured: axis, value, setting."""
    batches = [base.batch * x // 2 for x in (1, 2, 4, 8)]
    models = ((18, 512), (34, 512), (50, 2048), (101, 2048))
    return [
        *(('batch', str(x), replace(base, batch=x)) for x in batches),
        *(
            ('queue', str(x), replace(base, keys=x))
            for x in (1024, 4096, 16384, 65536, 262144)
        ),
        *(('image', str(x), replace(base, image=x)) for x in (16, 32, 48, 64)),
        *(
            (
                'model',
                f'ResNet-{depth}',
                replace(
                    base,
                    backbone={**base.backbone, 'depth': depth},
                    width=width,
                ),
            )
            for depth, width in models
        ),
    ]


def draw(points: list[Point], path: str) -> None:
    """Draw seconds and limit over each axis."""
    axes_of: dict[str, list[Point]] = {}
    for point in points:
        axes_of.setdefault(point.axis, []).append(point)
    units = {
        'batch': 'images a step',
        'queue': 'keys in the queue',
        'image': 'side of the views in pixels',
        'model': 'backbone',
    }
    figure, panels = plt.subplots(2, 2, figsize=(8, 6), layout='constrained')
    for panel, (axis, on_axis) in zip(
        panels.flat, axes_of.items(), strict=True
    ):
        across = range(len(on_axis))
        panel.plot(across, [p.seconds for p in on_axis], 'o-', label='step')
        panel.plot(
            across,
            [p.limit for p in on_axis],
            's--',
            label='operations ÷ rate of a matrix product',
        )
        panel.set_xticks(across, [p.value for p in on_axis])
        panel.set_xlabel(units[axis])
        panel.set_ylabel('seconds')
        panel.set_ylim(0, 1.1 * max(p.seconds for p in on_axis))
        panel.grid(alpha=0.3)
    lines, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc='outside upper center', ncols=2)
    figure.savefig(path, dpi=110)


def benchmark(
    *,
    batch: int = 32,
    keys: int = 65536,
    rounds: int = 3,
    device: Device = None,
    figure: str | None = None,
    json: str | None = None,
) -> None:
    """How the cost of a step grows with batch, queue, image and model.

    Args:
        batch: Images of a step.
        keys: Length of the queue.
        rounds: Times that each point is measured.
        device: Where; default: a GPU if there is one.
        figure: Draw the curves there.
        json: Also write the figures there.
    """
    prepare()
    where = device or fastest_device()
    torch.manual_seed(0)
    base = replace(
        fast(replace(MODELS_TO_TRAIN['resnet18_cifar'], device=where)),
        batch=batch,
        keys=keys,
    )
    measured = settings(base)
    steps = {}
    for axis, value, setting in measured:
        name = f'{axis} {value}'
        contender, (first, second) = build('ours', setting), views(setting)
        step = partial(contender.step, first, second)
        steps[name] = Timed(step, setting.device)
    before = matmul_rate(base.device, base.dtype)
    seconds = measure(
        {name: step.round for name, step in steps.items()}, rounds, 1
    )
    rate = max(before, matmul_rate(base.device, base.dtype))
    points = []
    for axis, value, _ in measured:
        name = f'{axis} {value}'
        flops = steps[name].flops()
        points.append(
            Point(axis, value, median(seconds[name]), flops, flops / rate)
        )
    print(
        f'ResNet-18 (CIFAR), batch {base.batch}, K = {base.keys}, '
        f'{base.image} pixels unless varied; {machine(where)}; median of '
        f'{rounds} rounds\n'
        f'matrix product: {rate / 1e9:.1f} GFLOP/s\n'
    )
    print(
        f'{"axis":8}{"value":>12}{"s":>9}{"GFLOP":>9}'
        f'{"limit s":>9}{"share":>8}'
    )
    for p in points:
        print(
            f'{p.axis:8}{p.value:>12}{p.seconds:9.3f}{p.flops / 1e9:9.1f}'
            f'{p.limit:9.3f}{p.limit / p.seconds:8.0%}'
        )
    if figure:
        draw(points, figure)
    if json:
        content = {
            'machine': machine(where),
            'matmul_flops_per_second': rate,
            'rows': [asdict(p) for p in points],
        }
        Path(json).write_text(dumps(content, indent=2) + '\n')


if __name__ == '__main__':
    cli.main(benchmark)
