"""What a look-up costs when keys of the same image or group are left out.

Mask, loss, gradient of the queries and the logged shares. Each round times
every way once; the ratios are medians over the rounds of one run.

    python benchmarks/exclusion.py --keys 65536
"""

import statistics
import time
from json import dumps

import torch
import torch.nn.functional as F
from own_process import prepare

from mmmoco.apis import cli
from mmmoco.functional import info_nce
from mmmoco.models.dictionaries import Queue


def benchmark(
    *, keys: int = 65536, batch: int = 256, dim: int = 128, rounds: int = 9
) -> None:
    """What a look-up costs when keys are left out.

    Args:
        keys: Length of the queue.
        batch: Queries of a look-up.
        dim: Width of a key.
        rounds: Times that each way is measured.
    """
    prepare()
    draws = torch.Generator().manual_seed(0)
    k = F.normalize(torch.randn(keys, dim, generator=draws), dim=1)
    numbers = torch.randint(keys // 8, (keys,), generator=draws)
    ways = {str(w): Queue(keys, dim, exclude=w) for w in (None, 'image')}
    ways['group'] = Queue(keys, dim, exclude='group')
    for queue in ways.values():
        queue.write(k, numbers, numbers)
    q = k[:batch].clone().requires_grad_()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, queue in ways.items():
            start = time.perf_counter()
            found = queue.lookup(q.detach(), *[numbers[:batch]] * 2)
            loss, _ = info_nce(q, found, 0.2)
            loss.backward()
            found.excluded()
            seconds[name].append(time.perf_counter() - start)
    first, *_ = seconds
    for name, each in seconds.items():
        pairs = zip(each[1:], seconds[first][1:], strict=True)
        row = dict(
            exclude=name,
            seconds=round(statistics.median(each[1:]), 4),
            ratio=round(statistics.median(a / b for a, b in pairs), 3),
        )
        print(dumps(row))


if __name__ == '__main__':
    cli.main(benchmark)
