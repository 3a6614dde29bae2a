"""Seconds and peak memory of an exact k-NN search, three ways.

Each round runs every way once, so that a machine that slows down slows all
of them. Peak memory is the growth of the process beyond the features, in a
process of its own.

    python benchmarks/knn.py --json knn.json
"""

import statistics
import time
from collections.abc import Callable
from json import dumps
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
from memory import peak_growth
from own_process import in_own_process
from torch import Tensor

from mmmoco.apis import cli
from mmmoco.functional import nearest

Way = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]


def ours(bank: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Search in chunks, by the backend that is chosen by itself."""
    return tuple(nearest(bank, queries, k))


def ours_torch(bank: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Search in chunks, without FAISS."""
    return tuple(nearest(bank, queries, k, backend='torch'))


def faiss_flat(bank: Tensor, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Search a flat FAISS index."""
    import faiss

    index = faiss.IndexFlatIP(bank.shape[1])
    index.add(F.normalize(bank, dim=1).numpy())
    found = index.search(F.normalize(queries, dim=1).numpy(), k)
    return tuple(map(torch.from_numpy, found))


def matmul_topk(
    bank: Tensor, queries: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """Make all similarities, then select."""
    similarity = F.normalize(queries, dim=1) @ F.normalize(bank, dim=1).T
    return tuple(similarity.topk(k, dim=1))


WAYS: dict[str, Way] = {
    way.__name__: way for way in (ours, ours_torch, faiss_flat, matmul_topk)
}


def features(bank: int, queries: int, dim: int) -> tuple[Tensor, Tensor]:
    """Return random bank and queries."""
    draws = torch.Generator().manual_seed(0)
    return (
        torch.randn(bank, dim, generator=draws),
        torch.randn(queries, dim, generator=draws),
    )


def peak(name: str, k: int, *sizes: int) -> float:
    """Return by how many MiB one way makes this process grow."""
    bank, queries = features(*sizes)
    way = WAYS[name]
    way(bank[:64], queries[:2], 1)  # Libraries are loaded before.
    return peak_growth(lambda: way(bank, queries, k)) / 2**20


def benchmark(
    *,
    bank: int = 50_000,
    queries: int = 10_000,
    dim: int = 512,
    k: int = 20,
    rounds: int = 3,
    json: Annotated[str | None, {'metavar': 'FILE'}] = None,
) -> None:
    """Seconds and peak memory of an exact k-NN search, three ways.

    Args:
        bank: Features to search among.
        queries: Features to find neighbours of.
        dim: Numbers of a feature.
        k: Neighbours of a query.
        rounds: Times that each way is run.
        json: Also write the figures there.
    """
    sizes = bank, queries, dim
    stored, asked = features(*sizes)
    found = {n: way(stored[:2000], asked[:50], 5) for n, way in WAYS.items()}
    for name, (similarity, indices) in found.items():
        torch.testing.assert_close(
            similarity, found['matmul_topk'][0], msg=name
        )
        assert torch.equal(indices, found['matmul_topk'][1]), name
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(rounds):
        for name, way in WAYS.items():
            start = time.perf_counter()
            way(stored, asked, k)
            seconds[name].append(time.perf_counter() - start)
    rows = [
        {
            'name': name,
            'seconds': statistics.median(times),
            'peak_mib': in_own_process(peak, name, k, *sizes),
        }
        for name, times in seconds.items()
    ]
    rivals = ('faiss_flat', 'matmul_topk')
    ratios = {
        f'ours/{name}': statistics.median(
            a / b for a, b in zip(seconds['ours'], seconds[name], strict=True)
        )
        for name in rivals
    }
    report = {'rows': rows, 'ratios': ratios, 'rounds': seconds}
    print(dumps(report, indent=1))
    if json:
        Path(json).write_text(dumps(report, indent=1))


if __name__ == '__main__':
    cli.main(benchmark)
