"""InfoNCE without the N×K similarities: keys are read in chunks, once.

The softmax and the mean of the keys under it, which is the gradient of the
queries, are summed up on the way, relative to the largest similarity so far
(online normalisation, `Milakov and Gimelshein
<https://arxiv.org/abs/1805.02867>`_).
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmmoco.older_versions import autocasts_to

from .hard_negatives import Hardest, Mixing, mixtures
from .info_nce import Candidates, Stats

# Similarities of so many pairs are held at a time. On a CPU they stay in the
# cache between the product and the sums, and are worth waking the threads for;
# on a GPU a few large kernels are launched instead of many small ones.
PAIRS_AT_A_TIME = {'cpu': 2**20, 'cuda': 2**24}


def info_nce(
    q: Tensor,
    candidates: Candidates,
    temperature: float,
    mixing: Mixing | None = None,
) -> tuple[Tensor, Stats]:
    """Score a look-up: cross-entropy of the positive among all candidates.

    As :func:`plain_info_nce`, but never holds the N×K similarities together.
    Under bfloat16 autocast the factors of the two large products (queries
    with keys, weights with keys) and what the first returns, the similarities
    to the keys, are rounded to bfloat16; everything else, and all of it
    otherwise, is float32. For ``top1`` the positive is rounded in the same
    way. Gradients flow to the queries, and to positives and keys where these
    require them.

    Args:
        q: N×C queries, L2-normalised.
        candidates: The keys of the look-up.
        temperature: τ, divides the similarities.
        mixing: Synthetic keys to add for each query; no gradient flows
            through them but that of the query's similarity to them.

    Returns:
        The mean loss over the N queries, and the statistics of the look-up.

    Raises:
        ValueError: If the feature widths differ.
    """
    keys = candidates.keys
    if q.shape[1] != keys.shape[0]:
        raise ValueError(
            f'The queries have {q.shape[1]} features, the dictionary '
            f"{keys.shape[0]}: set the dictionary's feat_dim to "
            'the output width of the neck.'
        )
    device = q.device.type
    in_bfloat16 = autocasts_to(torch.bfloat16, device)
    with torch.autocast(device, enabled=False):
        loss, *stats = LookUp.apply(
            q.float(),
            candidates.positive_keys.float(),
            keys,
            candidates.positive_index,
            candidates.mask,
            temperature,
            torch.bfloat16 if in_bfloat16 else torch.float32,
            mixing,
        )
    return loss, Stats(*stats)


class LookUp(torch.autograd.Function):
    """The loss, with the gradient of the queries made on the way."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        positives: Tensor,
        keys: Tensor,
        index: Tensor | None,
        mask: Tensor | None,
        temperature: float,
        factors: torch.dtype,
        mixing: Mixing | None,
    ) -> tuple[Tensor, ...]:
        """Return the loss and three statistics, with mixing four.

        Args:
            ctx: Of autograd.
            q: N×C queries, float32.
            positives: N×C, the positive of each, float32.
            keys: C×K.
            index: N, where positives stand among the keys; None: nowhere.
            mask: N×K, True where a key is no negative; None: all are.
            temperature: τ.
            factors: What the large products are made of.
            mixing: Synthetic keys to add for each query.
        """
        positive = (q * positives).sum(1)  # N
        largest = positive
        total = torch.ones_like(positive)  # Σ exp((s − largest) / τ)
        mean_key = positives.clone()  # the same sum over the keys, N×C
        rival = torch.full_like(positive, float('-inf'))
        negative, count = positive.new_zeros(()), positive.new_zeros(())
        products, sum_of_queries = _Products(q, keys, factors), q.sum(0)
        hardest = mixing and Hardest(len(q), mixing.n, q.device)
        for first, part in _chunks(keys, len(q), factors):
            similarity = products.similarity(part)  # N×chunk
            hidden = _hidden(index, mask, first, part.shape[1])
            if hidden is None:
                sum_of_keys = part.sum(1, dtype=torch.float32)
                negative += sum_of_queries @ sum_of_keys
                count += similarity.numel()
            else:
                negative += similarity.masked_fill_(hidden, 0.0).sum()
                count += hidden.numel() - hidden.count_nonzero()
                similarity.masked_fill_(hidden, float('-inf'))
            if hardest:
                hardest.see(first, similarity)
            rival = torch.maximum(rival, similarity.amax(1))
            new = torch.maximum(largest, rival)
            weight = similarity.sub_(new[:, None]).div_(temperature).exp_()
            shrink = ((largest - new) / temperature).exp_()
            total.mul_(shrink).add_(weight.sum(1))
            products.add_keys(mean_key.mul_(shrink[:, None]), weight, part)
            largest = new
        mixed: tuple[Tensor, ...] = ()
        if mixing and hardest:
            sums = largest, total, mean_key
            mixed = (
                _add_mixtures(sums, q, keys, hardest, mixing, temperature),
            )
        log_total = largest / temperature + total.log()
        loss = (log_total - positive / temperature).mean()
        # Softmax of the positive minus one, and of every key: d loss / d s.
        surplus = (positive / temperature - log_total).exp_().sub_(1.0)
        slope = mean_key.div_(total[:, None]).sub_(positives)
        ctx.temperature, ctx.factors = temperature, factors
        ctx.save_for_backward(q, slope, surplus, keys, log_total, index, mask)
        found = (rival < _as_rival(q, positives, factors)).float().mean()
        mean = negative / count.clamp(min=1)
        stats = positive.mean(), mean, found, *mixed
        ctx.mark_non_differentiable(*stats)
        return loss, *stats

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Any, ...]:
        """Return the gradients of queries, positives and keys."""
        q, slope, surplus, keys, log_total, index, mask = ctx.saved_tensors
        scale = grad / (ctx.temperature * len(q))
        for_positives = for_keys = None
        if ctx.needs_input_grad[1]:
            for_positives = scale * surplus[:, None] * q
        if ctx.needs_input_grad[2]:
            for_keys = torch.empty_like(keys)
            rounded = q.to(ctx.factors)
            for first, part in _chunks(keys, len(q), ctx.factors):
                end = first + part.shape[1]
                exponent = (rounded @ part).float().div_(ctx.temperature)
                weight = exponent.sub_(log_total[:, None]).exp_()
                hidden = _hidden(index, mask, first, part.shape[1])
                if hidden is not None:
                    weight.masked_fill_(hidden, 0.0)
                product = rounded.T @ weight.to(ctx.factors)
                for_keys[:, first:end] = scale * product
        return scale * slope, for_positives, for_keys, *[None] * 5


def _add_mixtures(
    sums: tuple[Tensor, Tensor, Tensor],
    q: Tensor,
    keys: Tensor,
    hardest: Hardest,
    mixing: Mixing,
    temperature: float,
) -> Tensor:
    """Add synthetic keys to the sums of a look-up, in place.

    Args:
        sums: Largest similarity, Σ exp((s − largest) / τ), and the same sum
            over the keys, of each query.
        q: As for :meth:`LookUp.forward`, as are the others.
        keys: C×K.
        hardest: Of the whole look-up.
        mixing: What is made.
        temperature: τ.

    Returns:
        The mean similarity of the queries to their synthetic keys.
    """
    largest, total, mean_key = sums
    none = hardest.count() == 0
    means = torch.zeros_like(largest)
    for part, made in mixtures(q, keys, hardest, mixing, _pairs_of(keys)):
        similarity = (made @ q[part, :, None]).squeeze(2)
        means[part] = similarity.mean(1)
        similarity.masked_fill_(none[part], float('-inf'))
        new = torch.maximum(largest[part], similarity.amax(1))
        weight = similarity.sub_(new[:, None]).div_(temperature).exp_()
        shrink = ((largest[part] - new) / temperature).exp_()
        total[part] = total[part] * shrink + weight.sum(1)
        added = (weight[:, None] @ made).squeeze(1)
        mean_key[part] = mean_key[part] * shrink[:, None] + added
        largest[part] = new
    return means.masked_fill_(none[:, 0], 0.0).sum() / (~none).sum().clamp(1)


def _as_rival(q: Tensor, positives: Tensor, factors: torch.dtype) -> Tensor:
    """Return the positives' similarities, as a key's would be rounded.

    A tie, as in a collapsed network, must not count as found: less what two
    sums of the same products may differ by, before the last rounding.
    """
    tf32 = q.is_cuda and torch.backends.cuda.matmul.allow_tf32
    slack = 2**-10 if tf32 and factors == torch.float32 else 2**-19
    product = q.to(factors).float() * positives.to(factors).float()
    return (product.sum(1) - slack).to(factors).float()


class _Products:
    """The two products of a chunk, in memory that serves all chunks.

    Otherwise glibc would return it to the system, and map and clear it again
    for the next chunk.
    """

    def __init__(self, q: Tensor, keys: Tensor, factors: torch.dtype) -> None:
        size = len(q) * min(keys.shape[1], _keys_at_a_time(keys, len(q)))
        self.q = q.to(factors)
        self.pairs = self.rounded = q.new_empty(size)
        if factors != torch.float32:
            self.rounded = q.new_empty(size, dtype=factors)

    def similarity(self, part: Tensor) -> Tensor:
        """Return N×chunk, float32, valid until the next call."""
        result = self._start_of(self.rounded, part)
        torch.mm(self.q, part, out=result)
        if self.rounded is self.pairs:
            return result
        return self._start_of(self.pairs, part).copy_(result)

    def add_keys(self, total: Tensor, weight: Tensor, part: Tensor) -> None:
        """Add the keys times their N×chunk weights to N×C."""
        if self.rounded is self.pairs:
            total.addmm_(weight, part.T)
        else:
            weight = self._start_of(self.rounded, part).copy_(weight)
            total.add_(weight @ part.T)

    def _start_of(self, memory: Tensor, part: Tensor) -> Tensor:
        shape = len(self.q), part.shape[1]
        return memory[: shape[0] * shape[1]].view(shape)


def _pairs_of(keys: Tensor) -> int:
    return PAIRS_AT_A_TIME.get(keys.device.type, PAIRS_AT_A_TIME['cuda'])


def _keys_at_a_time(keys: Tensor, queries: int) -> int:
    return max(1, _pairs_of(keys) // max(1, queries))


def _chunks(
    keys: Tensor, queries: int, dtype: torch.dtype
) -> Iterator[tuple[int, Tensor]]:
    """Yield the position and the values of some keys at a time."""
    length = _keys_at_a_time(keys, queries)
    for first in range(0, keys.shape[1], length):
        yield first, keys[:, first : first + length].to(dtype)


def _hidden(
    index: Tensor | None, mask: Tensor | None, first: int, length: int
) -> Tensor | None:
    """Return where keys are no negatives, N×length; None: all are."""
    hidden = None if mask is None else mask[:, first : first + length]
    if index is not None:
        # The positive stands beside the keys already.
        place = torch.arange(first, first + length, device=index.device)
        own = index[:, None] == place
        hidden = own if hidden is None else hidden | own
    return hidden
