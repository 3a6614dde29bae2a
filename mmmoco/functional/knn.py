"""Exact nearest neighbours by cosine similarity, and their weighted vote."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmengine.dist import get_world_size
from torch import Tensor

from .collectives import gather

BACKENDS = ('auto', 'torch', 'faiss')

#: exp of it is the least normal number of float32.
LEAST_EXPONENT = -87.0


class Neighbours(NamedTuple):
    """The nearest bank entries of every query, nearest first.

    Attributes:
        similarity: N×k cosine similarities, float32.
        indices: N×k positions in the bank.
    """

    similarity: Tensor
    indices: Tensor


@torch.no_grad()
def nearest(
    bank: Tensor,
    queries: Tensor,
    k: int,
    *,
    ids: Tensor | None = None,
    backend: str = 'auto',
    rows: int = 8192,
    query_rows: int = 2048,
) -> Neighbours:
    """Find the k nearest bank features of every query, exactly.

    The bank goes by in chunks, each normalised by itself, and is neither
    copied nor changed: it may be larger than the memory
    (``torch.from_numpy`` of a ``numpy.memmap``). Similarities accumulate in
    float32, whatever the features' precision is; no product is rounded to
    TensorFloat-32 or by autocast.

    Beside bank and queries, the memory holds a normalised copy of the
    queries, one chunk of the bank, ``rows`` · ``query_rows`` similarities
    and the N·k neighbours.

    Args:
        bank: M×C features on any device; chunks go to that of the queries.
        queries: N×C.
        k: Neighbours of each query, at most M.
        ids: M numbers of the bank entries; default: their positions.
        backend: ``'torch'``, ``'faiss'`` (on the CPU), or ``'auto'``: FAISS
            where it is installed and the queries are on the CPU, since its
            selection is the faster one there.
        rows: Bank entries of a chunk.
        query_rows: Queries compared with a chunk at once.

    Raises:
        ImportError: If FAISS is asked for and not installed.
        ValueError: If k exceeds the bank or the shapes do not fit.
    """
    if bank.dim() != 2 or queries.dim() != 2:
        raise ValueError(
            f'Features must be N×C, got a bank of {tuple(bank.shape)} and '
            f'queries of {tuple(queries.shape)}.'
        )
    if bank.shape[1] != queries.shape[1]:
        raise ValueError(
            f'The bank has features of {bank.shape[1]} numbers, the queries '
            f'of {queries.shape[1]}: take both from the same model and stage.'
        )
    _check_k(k, len(bank))
    device = queries.device
    backend = _choose(backend, device)
    queries = F.normalize(queries.float(), dim=1)
    found = Neighbours(
        torch.full((len(queries), k), -torch.inf, device=device),
        torch.zeros((len(queries), k), dtype=torch.long, device=device),
    )
    rows = min(max(rows, k), len(bank))
    query_rows = max(1, min(query_rows, len(queries)))
    buffer = queries.new_empty(rows * query_rows if backend == 'torch' else 0)
    with _exact_products(device):
        for start in range(0, len(bank), rows):
            chunk = bank[start : start + rows].to(device, torch.float32)
            chunk = F.normalize(chunk, dim=1)
            for first in range(0, len(queries), query_rows):
                part = slice(first, first + query_rows)
                if backend == 'faiss':
                    here = _search_faiss(chunk, queries[part], k)
                else:
                    here = _search(chunk, queries[part], k, buffer)
                numbers = here.indices + start
                if ids is not None:
                    numbers = ids.to(device)[numbers]
                before = Neighbours(*(x[part] for x in found))
                best = _best(k, before, Neighbours(here.similarity, numbers))
                found.similarity[part], found.indices[part] = best
    return found


def _check_k(k: int, features: int) -> None:
    if not 1 <= k <= features:
        raise ValueError(
            f'k={k} neighbours of a bank of {features} features; choose k '
            f'between 1 and {features}.'
        )


@contextmanager
def _exact_products(device: torch.device) -> Iterator[None]:
    """Compute float32 products as such, whatever --fast or --amp chose."""
    try:
        before = torch.get_float32_matmul_precision()
    except RuntimeError:
        # It was set in both of PyTorch's ways; allow_tf32 counts then.
        tf32 = torch.backends.cuda.matmul.allow_tf32
        before = 'high' if tf32 else 'highest'
    torch.set_float32_matmul_precision('highest')
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _search(
    chunk: Tensor, queries: Tensor, k: int, buffer: Tensor
) -> Neighbours:
    # Into one buffer: fresh pages cost as much as the selection.
    size = len(queries) * len(chunk)
    similarity = buffer[:size].view(len(queries), len(chunk))
    torch.mm(queries, chunk.T, out=similarity)
    return Neighbours(*similarity.topk(min(k, len(chunk)), dim=1))


def _choose(backend: str, device: torch.device) -> str:
    """Return the faster backend of those that work here, or the one asked."""
    if backend not in BACKENDS:
        raise ValueError(
            f'backend={backend!r}: use one of {", ".join(BACKENDS)}.'
        )
    found = find_spec('faiss') is not None
    if backend == 'faiss' and not found:
        raise ImportError(
            "backend='faiss' needs FAISS: pip install faiss-cpu, or "
            "use backend='torch'."
        )
    if backend == 'auto':
        return 'faiss' if found and device.type == 'cpu' else 'torch'
    return backend


def _search_faiss(chunk: Tensor, queries: Tensor, k: int) -> Neighbours:
    import faiss

    similarity, indices = faiss.knn(
        queries.cpu().numpy(),
        chunk.cpu().numpy(),
        min(k, len(chunk)),
        metric=faiss.METRIC_INNER_PRODUCT,
    )
    return Neighbours(
        torch.from_numpy(similarity).to(queries.device),
        torch.from_numpy(indices).to(queries.device),
    )


def _best(k: int, *parts: Neighbours) -> Neighbours:
    """Return the k best of several searches with the same queries."""
    joined, numbers = (torch.cat(x, 1) for x in zip(*parts, strict=True))
    similarity, order = joined.topk(min(k, joined.shape[1]), dim=1)
    return Neighbours(similarity, numbers.gather(1, order))


@torch.no_grad()
def nearest_in_shards(
    shard: Tensor, ids: Tensor, queries: Tensor, k: int, **options: int | str
) -> Neighbours:
    """Find neighbours in a bank of which every process holds a part.

    Args:
        shard: M_rank×C, this process's part; parts may differ in size.
        ids: M_rank numbers of its entries, each owned by one process.
        queries: N×C, the same on every process.
        k: Neighbours of each query, at most the entries of all parts.
        **options: As for :func:`nearest`.

    Returns:
        The same on every process.

    Raises:
        ValueError: If k exceeds the whole bank.
    """
    if get_world_size() == 1:
        return nearest(shard, queries, k, ids=ids, **options)  # type: ignore[arg-type]
    total = int(gather(torch.tensor([len(ids)], device=ids.device)).sum())
    _check_k(k, total)
    similarity = queries.new_full((len(queries), k), -torch.inf).float()
    indices = ids.new_zeros((len(queries), k)).to(queries.device)
    own = min(k, len(ids))
    if own:
        found = nearest(shard, queries, own, ids=ids, **options)  # type: ignore[arg-type]
        similarity[:, :own], indices[:, :own] = found
    parts = (gather(x).split(len(queries)) for x in (similarity, indices))
    return _best(k, *map(Neighbours, *parts))


@torch.no_grad()
def vote(
    neighbours: Neighbours,
    bank_labels: Tensor,
    num_classes: int,
    temperature: float = 0.07,
) -> Tensor:
    """Let neighbours vote (Wu et al. 2018; the protocol of DINO).

    Each votes for its class with weight exp(similarity / τ); for all of its
    classes, where an image may have several.

    Args:
        neighbours: Of N queries.
        bank_labels: M class indices, or M×L with 1 where a class is present.
        num_classes: Number of classes.
        temperature: τ.

    Returns:
        N×num_classes votes, relative to the nearest neighbour's weight; 0
        for a class, and only for one, that no neighbour has.
    """
    similarity = neighbours.similarity
    # Relative to the nearest: the ranking stays, no overflow at small τ. And
    # no vote rounds to 0, which would mean that nobody voted.
    weight = (similarity - similarity[:, :1]) / temperature
    weight = weight.clamp(min=LEAST_EXPONENT).exp()
    labels = bank_labels.to(similarity.device)[neighbours.indices]
    if labels.dim() == 3:
        shares = weight / weight.sum(1, keepdim=True)
        return torch.einsum('nk,nkl->nl', shares, labels.float())
    votes = similarity.new_zeros(len(similarity), num_classes)
    return votes.scatter_add_(1, labels, weight)
