"""Seconds and peak memory of an exact k-NN search, three ways.

Each round runs every way once, so that a machine that slows down slows all
of them. Peak memory is the growth of the process beyond the features, in a
process of its own.

    python benchmarks/knn.py --json knn.json
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

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


def features(args: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Return random bank and queries."""
    draws = torch.Generator().manual_seed(0)
    return (
        torch.randn(args.bank, args.dim, generator=draws),
        torch.randn(args.queries, args.dim, generator=draws),
    )


def peak(args: argparse.Namespace, name: str) -> float:
    """Return the growth of a fresh process in MiB."""
    command = [sys.executable, __file__, '--measure', name]
    for option in ('bank', 'queries', 'dim', 'k'):
        command += [f'--{option}', str(getattr(args, option))]
    return float(subprocess.check_output(command, text=True).split()[-1])


def measure(args: argparse.Namespace) -> None:
    """Print how far one way makes this process grow."""
    bank, queries = features(args)
    way = WAYS[args.measure]
    way(bank[:64], queries[:2], 1)  # Libraries are loaded before.
    before = memory('VmRSS')
    way(bank, queries, args.k)
    # Not ru_maxrss, which begins with the memory of the parent process.
    print(max(0.0, memory('VmHWM') - before))


def memory(row: str) -> float:
    """Return what Linux counts for this process in MiB."""
    with open('/proc/self/status') as file:
        rows = dict(line.split(':', 1) for line in file)
    return float(rows[row].split()[0]) / 1024


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--bank', type=int, default=50_000)
    parser.add_argument('--queries', type=int, default=10_000)
    parser.add_argument('--dim', type=int, default=512)
    parser.add_argument('--k', type=int, default=20)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--json', metavar='FILE')
    parser.add_argument('--measure', choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        measure(args)
        return
    bank, queries = features(args)
    found = {n: way(bank[:2000], queries[:50], 5) for n, way in WAYS.items()}
    for name, (similarity, indices) in found.items():
        torch.testing.assert_close(
            similarity, found['matmul_topk'][0], msg=name
        )
        assert torch.equal(indices, found['matmul_topk'][1]), name
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(args.rounds):
        for name, way in WAYS.items():
            start = time.perf_counter()
            way(bank, queries, args.k)
            seconds[name].append(time.perf_counter() - start)
    rows = [
        {
            'name': name,
            'seconds': statistics.median(times),
            'peak_mib': peak(args, name),
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
    print(json.dumps(report, indent=1))
    if args.json:
        with open(args.json, 'w') as file:
            json.dump(report, file, indent=1)


if __name__ == '__main__':
    main()
