"""What several processes cost: bytes that travel, and the flags of DDP.

CPU processes over gloo, one thread each. The bytes are what the loopback
interface counts for all processes together, protocol included; beside them
stands what the formula says. One process alone and two, with each set of
flags, take turns on the same model and the same batch per process.

    python benchmarks/process_cost.py --json processes.json
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from json import dumps, loads
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from contenders import MODELS_TO_TRAIN, Ours
from mmengine.model import MMDistributedDataParallel
from own_process import prepare
from roofline import machine
from torch import Tensor
from train_step import views

from mmmoco.apis import cli
from mmmoco.functional import gather, shuffle, shuffle_plan, unshuffle

BATCH, SIDE, DIM = 32, 224, 128  # of the exchange
BUCKETS = dict(broadcast_buffers=False, gradient_as_bucket_view=True)
FLAGS: dict[str, dict[str, Any]] = {
    'buffers broadcast': dict(broadcast_buffers=True),
    'no broadcast': dict(broadcast_buffers=False),
    'and bucket views': BUCKETS,
    'and a static graph': BUCKETS | dict(static_graph=True),
}


def loopback_bytes() -> int:
    """Return the bytes received so far by the loopback interface (Linux)."""
    lines = Path('/proc/net/dev').read_text().splitlines()
    (line,) = (x for x in lines if x.strip().startswith('lo:'))
    return int(line.split(':')[1].split()[0])


def travelled(action: Callable[[], Any], times: int = 3) -> float:
    """Return the bytes of all processes together for one call."""
    action()
    before = bytes_at_rest()
    for _ in range(times):
        action()
    return (bytes_at_rest() - before) / times


def bytes_at_rest() -> int:
    """Read the counter while no process sends anything but barriers."""
    dist.barrier()
    count = loopback_bytes()
    dist.barrier()
    return count


def exchanges(world: int) -> dict[str, tuple[float, float]]:
    """Return measured and calculated bytes of what a step exchanges."""
    image = torch.zeros(BATCH, 3, SIDE, SIDE, dtype=torch.uint8)
    key = torch.zeros(BATCH, DIM)
    plan = shuffle_plan(BATCH, seed=0, step=0, device=torch.device('cpu'))
    leaving = torch.tensor(sum(plan.sent) - plan.sent[dist.get_rank()])
    dist.all_reduce(leaving)
    finished = image.float()

    def every(x: Tensor) -> int:
        return world * (world - 1) * x.nbytes

    def left(x: Tensor) -> int:
        return int(leaving) * x[0].nbytes

    return {
        'ShuffleBN: uint8 images to their encoder': (
            travelled(lambda: shuffle(image, plan)),
            left(image),
        ),
        'ShuffleBN: keys back': (
            travelled(lambda: unshuffle(key, plan)),
            left(key),
        ),
        'keys to all queues': (travelled(lambda: gather(key)), every(key)),
        'for comparison: float images to all': (
            travelled(lambda: gather(finished)),
            every(finished),
        ),
    }


def work(
    rank: int, world: int, batch: int, turns: int, place: str, out: str
) -> None:
    """Measure in one process of a group; the first one writes."""
    torch.set_num_threads(1)
    prepare()
    dist.init_process_group(
        'gloo', init_method=f'file://{place}', rank=rank, world_size=world
    )
    setting = replace(MODELS_TO_TRAIN['resnet18_cifar'], batch=batch)
    first, second = views(setting)
    steps: dict[str, Callable[[], Any]] = {}
    size = 0
    for name, flags in FLAGS.items() if world > 1 else [('alone', {})]:
        ours = Ours(setting)
        if world > 1:
            ours.wrapped = MMDistributedDataParallel(
                ours.model, device_ids=None, **flags
            )
        learnt = [p for p in ours.model.parameters() if p.requires_grad]
        size = sum(p.nbytes for p in learnt)
        steps[name] = lambda ours=ours: ours.step(first, second)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(turns + 1):
        for name, step in steps.items():
            dist.barrier()
            start = time.perf_counter()
            step()
            dist.barrier()
            if turn > 0:
                seconds[name].append(time.perf_counter() - start)
    bytes_: dict[str, tuple[float, float]] = {}
    if world > 1:
        bytes_ = exchanges(world)
        gradients = 2.0 * (world - 1) * size
        for name in ('no broadcast', 'buffers broadcast'):
            text = f'whole step ({batch} CIFAR images), {name}'
            bytes_[text] = travelled(steps[name]), gradients
    if rank == 0:
        content = {'seconds': seconds, 'bytes': bytes_}
        Path(out).write_text(dumps(content))
    dist.destroy_process_group()


def group(world: int, batch: int, turns: int) -> dict[str, Any]:
    """Run a group of processes, return what the first one measured."""
    with tempfile.TemporaryDirectory() as folder:
        out = f'{folder}/result.json'
        place = f'{folder}/store'
        mp.spawn(work, (world, batch, turns, place, out), nprocs=world)
        result: dict[str, Any] = loads(Path(out).read_text())
    return result


def benchmark(
    *,
    processes: int = 2,
    batch: int = 16,
    rounds: int = 3,
    turns: int = 3,
    json: str | None = None,
) -> None:
    """What several processes cost: bytes that travel, and the flags of DDP.

    Args:
        processes: Processes of the larger group.
        batch: Images per process.
        rounds: Times that each group is started.
        turns: Steps in a round.
        json: Also write the figures there.
    """
    seconds: dict[str, list[float]] = {}
    results: dict[str, Any] = {}
    for _ in range(rounds):
        for world in (1, processes):
            results = group(world, batch, turns)
            for name, values in results['seconds'].items():
                seconds.setdefault(name, []).extend(values)
    medians = {name: median(values) for name, values in seconds.items()}
    print(
        f'{machine()}; {processes} processes of 1 thread; exchange of '
        f'{BATCH} images of {SIDE} pixels per process\n'
    )
    print(
        f'{"bytes of a step, all processes":48}{"measured":>13}{"formula":>13}'
    )
    for name, (measured, formula) in results['bytes'].items():
        print(f'{name:48}{measured:13,.0f}{formula:13,.0f}')
    title = f'ResNet-18 (CIFAR), {batch} images a process'
    print(f'\n{title:48}{"s":>13}')
    for name, value in medians.items():
        print(f'{name:48}{value:13.3f}')
    if json:
        content = {
            'machine': machine(),
            'bytes': results['bytes'],
            'seconds': medians,
        }
        Path(json).write_text(dumps(content, indent=2) + '\n')


if __name__ == '__main__':
    cli.main(benchmark)
