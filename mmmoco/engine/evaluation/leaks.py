"""Query images that stand in the bank: they find themselves."""

import hashlib
import os
from contextlib import suppress
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmmoco.engine.results import file_hash
from mmmoco.functional import Neighbours

#: Equal images have equal features, but for rounding.
EQUAL = 1 - 1e-6

#: So many of the nearest neighbours are looked at, to count.
COLUMNS = 5


class Leaks(NamedTuple):
    """Which queries stand in the bank.

    Attributes:
        same: N×k, True where a neighbour is the query itself: of the same
            path or of the same content.
        queries: N, True where a query stands in the bank.
        by_path: How many of them are known by their path.
        example: Names of one query and its twin; None without a leak.
    """

    same: Tensor
    queries: Tensor
    by_path: int
    example: tuple[str, str] | None

    @property
    def total(self) -> int:
        """How many queries stand in the bank."""
        return int(self.queries.sum())


class ImageIdentity:
    """Tells whether samples of two data sets are the same image.

    Files are compared by path, then by size, then by a hash of their bytes,
    each read once at most; samples that are no files by their pixels.

    Args:
        bank: Data set.
        query: Data set.
    """

    def __init__(self, bank: Any, query: Any) -> None:
        self.bank, self.query = bank, query
        self._size, self._hash = cache(os.path.getsize), cache(file_hash)
        self._pixels = [cache(partial(_pixels, x)) for x in (bank, query)]
        self._places = ours, theirs = _paths(bank), _paths(query)
        where = {path: i for i, path in enumerate(ours or ())}
        #: Position in the bank of each query that is there by its path.
        self.by_path = {
            i: where[path]
            for i, path in enumerate(theirs or ())
            if path in where
        }

    def equal(self, bank_id: int, query_id: int) -> bool:
        """Whether they are one image."""
        if self.by_path.get(query_id) == bank_id:
            return True
        ours, theirs = self._places
        if ours and theirs:
            a, b = ours[bank_id], theirs[query_id]
            return self._size(a) == self._size(b) and (
                self._hash(a) == self._hash(b)
            )
        if any(
            getattr(d, 'is_stream', False) for d in (self.bank, self.query)
        ):
            return False  # Streams cannot be asked for one sample.
        bank, query = self._pixels
        return bank(bank_id) == query(query_id)

    def data_hash(self) -> str:
        """Return a short hash of what the files of both are, and labels.

        Of their names, sizes and dates; their content is not read.
        """
        digest = hashlib.blake2b(digest_size=8)
        for dataset, paths in zip(
            (self.bank, self.query), self._places, strict=True
        ):
            for path in paths or ():
                facts = f'\0{path}'
                with suppress(OSError):
                    found = os.stat(path)
                    facts += f'\0{found.st_size}\0{found.st_mtime_ns}'
                digest.update(facts.encode(errors='surrogateescape'))
            labels = getattr(dataset, 'labels', None)
            if labels is None and paths:
                count = range(len(paths))
                infos = [dataset.get_data_info(i) for i in count]
                labels = [info.get('gt_label') for info in infos]
            if labels is not None:
                digest.update(repr([str(x) for x in labels]).encode())
        return digest.hexdigest()

    def name(self, bank_id: int, query_id: int) -> tuple[str, str]:
        """Return what the two are called."""
        ours, theirs = self._places
        return (
            theirs[query_id] if theirs else f'query {query_id}',
            ours[bank_id] if ours else f'image {bank_id} of the bank',
        )


def find_leaks(
    identity: ImageIdentity,
    found: Neighbours,
    bank_ids: Tensor,
    query_ids: Tensor,
    columns: int | None = COLUMNS,
) -> Leaks:
    """Look for queries among their own neighbours.

    Args:
        identity: Compares images.
        found: Neighbours of the N queries, by position in the bank.
        bank_ids: Sample of each position.
        query_ids: Sample of each query.
        columns: Neighbours that are looked at; None: all.
    """
    similarity, indices = (part.cpu() for part in found)
    bank_ids, query_ids = bank_ids.cpu(), query_ids.cpu()
    numbers = bank_ids[indices]  # N×k samples
    twin = torch.tensor(
        [identity.by_path.get(int(i), -1) for i in query_ids], dtype=torch.long
    )
    same = numbers == twin[:, None]
    near = similarity[:, :columns] >= EQUAL
    example: tuple[str, str] | None = None
    for row, column in near.nonzero().tolist():
        if not same[row, column]:
            pair = int(numbers[row, column]), int(query_ids[row])
            same[row, column] = identity.equal(*pair)
    queries = same.any(1) | (twin >= 0)
    if bool(queries.any()):
        row = int(queries.nonzero()[0])
        hits = numbers[row][same[row]]
        place = int(hits[0]) if len(hits) else int(twin[row])
        example = identity.name(place, int(query_ids[row]))
    return Leaks(same, queries, int((twin >= 0).sum()), example)


def leave_out(found: Neighbours, same: Tensor, k: int) -> Neighbours | None:
    """Return the k nearest neighbours that are not the query itself.

    Args:
        found: More than k neighbours of each query.
        same: True where a neighbour is the query.
        k: How many are wanted.

    Returns:
        None if fewer than k are left of one query.
    """
    same = same.to(found.indices.device)
    if int((~same).sum(1).min()) < k:
        return None
    order = same.to(torch.uint8).argsort(dim=1, stable=True)[:, :k]
    return Neighbours(*(part.gather(1, order) for part in found))


def path_of(dataset: Any, index: int) -> str | None:
    """Return the file of a sample, if it is one."""
    paths = getattr(dataset, 'paths', None)
    if paths is not None:
        return str(paths[index])
    info = getattr(dataset, 'get_data_info', None)
    path = info(index).get('img_path') if info is not None else None
    return None if path is None else str(path)


def _paths(dataset: Any) -> list[str] | None:
    """Return the absolute paths of all samples, if they are files."""
    count = len(dataset)
    first = path_of(dataset, 0) if count else None
    if first is None or not os.path.isfile(first):
        return None
    return [os.path.abspath(path_of(dataset, i) or '') for i in range(count)]


def _pixels(dataset: Any, index: int) -> bytes:
    image = dataset[index]['inputs']['image']
    content = torch.as_tensor(image).contiguous().numpy()
    shape = repr((content.shape, content.dtype)).encode()
    return hashlib.sha256(shape + content.tobytes()).digest()
