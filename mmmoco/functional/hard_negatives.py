"""Keys mixed from the negatives that are hardest for each query (MoCHi)."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Mixing:
    """What a look-up mixes (`MoCHi <https://arxiv.org/abs/2010.01028>`_).

    Attributes:
        n: Keys of a query to mix from, the most similar ones.
        s: Mixtures of two of them, for each query.
        s2: Mixtures of one of them and the query.
        draws: N×:attr:`numbers` from [0, 1), which choose keys and shares.
    """

    n: int
    s: int
    s2: int
    draws: Tensor

    @staticmethod
    def numbers(s: int, s2: int) -> int:
        """Return how many numbers the mixtures of one query need."""
        return 3 * s + 2 * s2


class Hardest:
    """The keys that are most similar to each query, found part by part.

    Args:
        queries: How many there are, N.
        n: Keys to keep for each; all, if there are fewer.
        device: Where.
    """

    def __init__(self, queries: int, n: int, device: torch.device) -> None:
        self.n = n
        self.similarity = torch.empty(queries, 0, device=device)
        self.place = self.similarity.to(torch.int64)

    def see(self, first: int, similarity: Tensor) -> None:
        """Take the keys from ``first`` on into account.

        Args:
            first: Place of the first key.
            similarity: N×M; −∞ where a key is no negative.
        """
        seen, place = similarity.topk(min(self.n, similarity.shape[1]))
        seen = torch.cat([self.similarity, seen], 1)
        place = torch.cat([self.place, place + first], 1)
        self.similarity, order = seen.topk(min(self.n, seen.shape[1]))
        self.place = place.gather(1, order)

    def count(self) -> Tensor:
        """Return how many negatives there are among them, N×1."""
        return (self.similarity > float('-inf')).sum(1, keepdim=True)


def mixtures(
    q: Tensor, keys: Tensor, hardest: Hardest, mixing: Mixing, most: int
) -> Iterator[tuple[slice, Tensor]]:
    """Yield synthetic keys for some queries at a time.

    Args:
        q: N×C queries, float32.
        keys: C×K.
        hardest: Of these queries among these keys.
        mixing: What is made.
        most: Numbers to make at a time.

    Yields:
        Which queries, and M×(s + s2)×C L2-normalised keys. Those of a query
        without any negative mean nothing.
    """
    s, s2, count = mixing.s, mixing.s2, hardest.count()
    *chosen, share, own_share = mixing.draws.split([s, s, s2, s, s2], 1)
    ranks = [
        (x * count).to(torch.int64).minimum(count - 1).relu() for x in chosen
    ]
    first, second, third = (hardest.place.gather(1, x) for x in ranks)
    rows = keys.T.contiguous()  # Read one key at a time, several times each.
    length = max(1, most // max(1, (s + s2) * q.shape[1]))
    for start in range(0, len(q), length):
        part = slice(start, start + length)
        a, b, c = (rows[x[part]].to(q.dtype) for x in (first, second, third))
        pairs = torch.lerp(b, a, share[part, :, None])
        # Below half: the query is no negative of itself.
        with_query = torch.lerp(
            c, q[part, None], 0.5 * own_share[part, :, None]
        )
        yield part, F.normalize(torch.cat([pairs, with_query], 1), dim=2)
