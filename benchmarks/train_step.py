"""Images per second and memory of a MoCo training step, by whom.

The contenders stand in contenders.py. Each has a process of its own; they
take turns, a few steps each, in another order every round, so that whatever
disturbs the machine, and who has just been at work, disturbs all alike. Rates
are medians over the rounds, ratios medians of the rounds' ratios. Memory is
what a step needs beyond model, optimizer and queue, where freed memory is not
kept.

    python benchmarks/train_step.py --model resnet18_cifar --json step.json
    python benchmarks/train_step.py --part infonce

With ``--compile`` the same also by way of torch.compile. The limit is the
time that the operations of a step take at the rate of a matrix product in the
precision of ``--fast`` (roofline.py).
Other parts: ``ema``, the moving average of the model's parameters; ``views``,
the two views of MoCo v3 through a ViT-S one after the other or as one batch,
queries with gradients, keys without.
"""

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from json import dumps
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
import torch.nn.functional as F
from contenders import (
    MODELS_TO_TRAIN,
    MOMENTUM,
    TEMPERATURE,
    Device,
    Model,
    Setting,
    build,
    contenders,
    fast,
)
from memory import peak_growth, return_freed_memory
from own_process import OwnProcess, in_own_process, prepare
from roofline import (
    fastest_device,
    flops_of,
    machine,
    matmul_rate,
    synchronise,
)
from torch import Tensor

from mmmoco.apis import cli
from mmmoco.functional import Candidates, info_nce
from mmmoco.models.encoders import ema_
from mmmoco.registry import MODELS

RATIOS = (
    ('ours', 'mmpretrain'),
    ('ours', 'lightly'),
    ('ours', 'official_transcription'),
    ('ours_equalised', 'mmpretrain_equalised'),
    ('ours', 'mmpretrain_same_settings'),
    ('ours_plain', 'mmpretrain'),
    ('ours_compiled', 'mmpretrain'),
)


def views(setting: Setting) -> tuple[Tensor, Tensor]:
    """Return two batches of random views."""
    shape = setting.batch, 3, setting.image, setting.image
    first, second = torch.randn(2, *shape).to(setting.device)
    return first, second


@dataclass
class Timed:
    """What is done, and how long it takes.

    Attributes:
        step: Does it.
        device: Where.
    """

    step: Callable[[], Any]
    device: str

    def __post_init__(self) -> None:
        self.step()

    def round(self, turns: int) -> float:
        """Return seconds of one time in so many."""
        if self.device == 'cuda':
            self.step()  # takes back what it had released
        synchronise(self.device)
        start = time.perf_counter()
        for _ in range(turns):
            self.step()
        synchronise(self.device)
        seconds = (time.perf_counter() - start) / turns
        if self.device == 'cuda':
            torch.cuda.empty_cache()  # for the others' processes
        return seconds

    def flops(self) -> int:
        """Count the operations of one time."""
        return flops_of(self.step)


def timed(way: Callable[..., Any], name: str, setting: Setting) -> Timed:
    """Build one way of doing something."""
    torch.manual_seed(0)
    return Timed(way(name, setting), setting.device)


def step_of(
    name: str, setting: Setting, keep_memory: bool = True
) -> Callable[[], Any]:
    """Build one contender and return its step."""
    contender = build(name, setting, keep_memory)
    first, second = views(setting)
    return lambda: contender.step(first, second)


def look_up_of(name: str, setting: Setting) -> Callable[[], Any]:
    """Return one way to do forward and backward of the look-up.

    With ``_bfloat16`` behind the name, in mixed precision.
    """
    name, _, precision = name.partition('_')
    if precision:
        setting = replace(setting, dtype=torch.bfloat16)
    q, k = F.normalize(torch.randn(2, setting.batch, setting.dim), dim=2)
    keys = F.normalize(torch.randn(setting.dim, setting.keys), dim=0)
    q, k, keys = (x.to(setting.device) for x in (q, k, keys))
    q.requires_grad_()

    def ours() -> None:
        loss, _ = info_nce(q, Candidates(keys=keys, positives=k), TEMPERATURE)
        torch.autograd.grad(loss, q)

    def concat() -> None:
        positive = (q * k).sum(1, keepdim=True)
        logits = torch.cat([positive, q @ keys], dim=1) / TEMPERATURE
        target = torch.zeros(len(q), dtype=torch.long, device=q.device)
        torch.autograd.grad(F.cross_entropy(logits, target), q)

    @torch.compile
    def loss_of(q: Tensor) -> Tensor:
        positive = (q * k).sum(1, keepdim=True) / TEMPERATURE
        negatives = torch.logsumexp(q @ keys / TEMPERATURE, 1, keepdim=True)
        return (torch.logaddexp(negatives, positive) - positive).mean()

    def compiled() -> None:
        torch.autograd.grad(loss_of(q), q)

    way = {'ours': ours, 'concat': concat, 'compiled': compiled}[name]

    def look_up() -> None:
        with setting.autocast():
            way()

    return look_up


def ema_of(name: str, setting: Setting) -> Callable[[], Any]:
    """Return one way to move the key encoder's parameters."""
    old, new = (
        [
            p.detach()
            for p in MODELS.build(setting.backbone)
            .to(setting.device)
            .parameters()
        ]
        for _ in range(2)
    )

    def loop() -> None:
        for own, other in zip(old, new, strict=True):
            own.data = own.data * MOMENTUM + other.data * (1 - MOMENTUM)

    return {'ours': lambda: ema_(old, new, MOMENTUM), 'loop': loop}[name]


def views_of(name: str, setting: Setting) -> Callable[[], Any]:
    """Return one way to pass both views of MoCo v3 through a ViT-S."""
    backbone = dict(type='MoCoV3ViT', arch='small', img_size=setting.image)
    query, key = (MODELS.build(backbone) for _ in range(2))
    query.to(setting.device), key.to(setting.device)
    first, second = views(setting)

    def apart(network: Any) -> Any:
        return torch.cat([network(first)[-1], network(second)[-1]])

    def joined(network: Any) -> Any:
        return network(torch.cat([first, second]))[-1]

    encode = {'apart': apart, 'joined': joined}[name]

    def step() -> None:
        with setting.autocast():
            with torch.no_grad():
                encode(key)
            encode(query).sum().backward()

    return step


#: What can be measured: how a way of doing it is built, and the ways.
PARTS: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    'infonce': (look_up_of, ('ours', 'concat')),
    'ema': (ema_of, ('ours', 'loop')),
    'views': (views_of, ('joined', 'apart')),
}


def measure(
    ways: dict[str, Callable[[int], float]], rounds: int, turns: int
) -> dict[str, list[float]]:
    """Let all take turns; return what each returned in every round."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for name in in_turns(ways, rounds):
        seconds[name].append(ways[name](turns))
    return seconds


def in_turns(names: Iterable[str], rounds: int) -> Iterator[str]:
    """Yield every name once a round, in another order each time."""
    order, draws = list(names), random.Random(0)
    for _ in range(rounds):
        draws.shuffle(order)
        yield from order


def times_as_fast(ours: list[float], other: list[float]) -> float:
    """Return the median of the ratios of the rounds."""
    return median(b / a for a, b in zip(ours, other, strict=True))


def peak_extra_bytes(
    way: Callable[..., Any], name: str, setting: Setting
) -> int:
    """Return how far memory grows during a step, after a first one."""
    prepare()
    return_freed_memory()
    step = way(name, setting)
    step()
    return peak_growth(step, setting.device)


def benchmark(
    *,
    part: Literal['step', 'infonce', 'ema', 'views'] = 'step',
    model: Model = 'resnet18_cifar',
    batch: int | None = None,
    keys: int | None = None,
    image: int | None = None,
    rounds: int = 5,
    turns: int = 2,
    device: Device = None,
    compile: bool = False,
    json: str | None = None,
) -> None:
    """Images per second and memory of a MoCo training step, by whom.

    Args:
        part: What is measured.
        model: What is trained.
        batch: Images; default: the model's.
        keys: Length of the queue; default: the model's.
        image: Side of the views; default: the model's.
        rounds: Rounds, in each of which all take their turns.
        turns: Steps in a round.
        device: Where; default: a GPU if there is one.
        compile: Add ours by torch.compile (steps and infonce).
        json: Also write the figures there.
    """
    prepare()
    where = device or fastest_device()
    given = {'batch': batch, 'keys': keys, 'image': image}
    setting = replace(
        MODELS_TO_TRAIN[model],
        device=where,
        **{name: value for name, value in given.items() if value},
    )
    way: Callable[..., Any] = step_of
    names: Sequence[str] = list(contenders(setting, compile))
    pairs = RATIOS
    if part != 'step':
        way, names = PARTS[part]
        pairs = ((names[0], names[1]),)
    if part == 'infonce':
        setting = replace(setting, batch=batch or 256)
        if fast(setting).dtype is not None:
            names = (*names, 'ours_bfloat16', 'concat_bfloat16')
            pairs = (*pairs, ('ours_bfloat16', 'concat_bfloat16'))
        if compile:
            names = (*names, 'compiled')
            pairs = (*pairs, ('ours', 'compiled'))
    lean = partial(way, keep_memory=False) if way is step_of else way
    peaks = {
        name: in_own_process(peak_extra_bytes, lean, name, setting)
        for name in names
    }
    processes = {
        name: OwnProcess(partial(timed, way, name, setting)) for name in names
    }
    per_round = measure(
        {name: partial(p.call, 'round') for name, p in processes.items()},
        rounds,
        turns,
    )
    seconds = {name: median(values) for name, values in per_round.items()}
    ratios = {
        f'{ours}/{other}': times_as_fast(per_round[ours], per_round[other])
        for ours, other in pairs
        if ours in per_round and other in per_round
    }
    print(
        f'{part}, {model}: batch {setting.batch}, '
        f'K = {setting.keys}, {setting.image} pixels; {machine(where)}; '
        f'median of {rounds} rounds of {turns}\n'
    )
    print(f'{"":24}{"s":>9}{"images/s":>10}{"peak extra MiB":>16}')
    for name in names:
        rate, extra = setting.batch / seconds[name], peaks[name] / 2**20
        print(f'{name:24}{seconds[name]:9.4f}{rate:10.1f}{extra:16.1f}')
    limit = None
    if part == 'step':
        rate = matmul_rate(where, fast(setting).dtype)
        limit = processes['ours'].call('flops') / rate
        print(f'{"limit":24}{limit:9.4f}{setting.batch / limit:10.1f}')
    print()
    for name, ratio in ratios.items():
        print(f'{name:40}{ratio:6.2f} times as fast')
    if json:
        rows = [
            {
                'name': name,
                'seconds': seconds[name],
                'images_per_second': setting.batch / seconds[name],
                'peak_extra_bytes': peaks[name],
            }
            for name in names
        ]
        content = {
            'machine': machine(where),
            'rows': rows,
            'ratios': ratios,
            'limit_seconds': limit,
        }
        Path(json).write_text(dumps(content, indent=2) + '\n')


if __name__ == '__main__':
    cli.main(benchmark)
