"""Samples that know where in the run they are drawn.

The sampler yields addresses instead of bare indices; the data set seeds the
global generators from the address before its transforms run. What a sample
looks like then depends on seed, epoch and sample alone: not on the worker,
the number of workers, or on what was loaded before.
"""

import itertools
from abc import abstractmethod
from collections.abc import Iterator, Sized
from typing import Any, NamedTuple

import torch
from mmengine.dist import get_dist_info
from torch import Tensor
from torch.utils.data import Sampler

from mmmoco.functional import derive_seed, generator
from mmmoco.registry import DATA_SAMPLERS

from .source import Source


class SampleAddress(NamedTuple):
    """Where a sample is drawn.

    Attributes:
        index: Position in the data set.
        epoch: How often the data set was gone through before.
        seed: Seed of the run.
    """

    index: int  # type: ignore[assignment]  # tuples have a method index
    epoch: int
    seed: int


class AddressedDataset(Source):
    """A data set whose random transforms depend on the address alone.

    A sample that cannot be read (the pipeline raises an OSError, or returns
    None) is replaced by another one, drawn from (seed, epoch, index,
    attempt); ``'bad'`` of the result says how many were tried in vain, and
    ``'ids'`` which one it is in the end. Only a bare index raises.

    Args:
        pipeline: Configs of transforms, applied in order.
    """

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def sample(self, index: int) -> dict[str, Any]:
        """Return what the first transform receives."""

    def name_of(self, index: int) -> str:
        """Return what a sample is called in messages, such as its path."""
        return f'sample {index}'

    def __getitem__(self, item: int | SampleAddress) -> dict[str, Any]:
        """Return a transformed sample.

        Args:
            item: An address; or a bare index, which has epoch 0 and seed 0
                and is not replaced.

        Raises:
            OSError: If the sample of a bare index cannot be read.
            UnreadableDataError: If no replacement can be read either.
        """
        if not isinstance(item, SampleAddress):
            item = int(item)
            return self._transformed(
                lambda i: self.sample(item), 0, 0, 0, item
            )
        index, epoch, seed = item

        def chosen(attempt: int) -> int:
            if not attempt:
                return index
            address = epoch, index, attempt, 'replacement'
            return derive_seed(seed, *address) % len(self)

        return self._first_readable(
            lambda attempt: self.sample(chosen(attempt)),
            lambda attempt: self.name_of(chosen(attempt)),
            seed,
            epoch,
            index,
        )


#: Indices that become Python numbers together: a long epoch begins, and is
#: resumed, without a list of all of it.
_AT_ONCE = 4096


@DATA_SAMPLERS.register_module()
class AddressedSampler(Sampler[SampleAddress]):
    """Yield this process's share of every epoch, as addresses.

    All processes get equally many samples: the last ones are repeated from
    the beginning of the permutation, so that no process waits for another.
    A :class:`ShardStream` orders its samples by itself; its addresses are
    the positions in the stream of this process.

    Args:
        dataset: The data set.
        shuffle: Permute it anew in every epoch.
        seed: Seed of the run (given by the runner).
        infinite: Go on with the next epoch by itself, for iteration-based
            loops.
        limit: Take at most so many samples, evenly spread over the data set,
            the same in every epoch; for evaluations. None: all.
    """

    def __init__(
        self,
        dataset: Sized,
        shuffle: bool = True,
        seed: int | None = None,
        infinite: bool = False,
        limit: int | None = None,
    ) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f'AddressedSampler(limit={limit}): at least 1.')
        self.limit = limit
        self.dataset = dataset
        self.shuffle = shuffle
        self.seed = 0 if seed is None else seed
        self.infinite = infinite
        self.epoch = 0
        self.rank, self.world_size = get_dist_info()
        self._skipped = 0

    def __len__(self) -> int:
        """Samples of one epoch on this process."""
        return -(-self._count // self.world_size)

    @property
    def _count(self) -> int:
        """Samples of one epoch on all processes."""
        size = len(self.dataset)
        return size if self.limit is None else min(size, self.limit)

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation; called by mmengine before each epoch."""
        self.epoch = epoch

    def skip(self, samples: int) -> None:
        """Begin the next iteration later; nothing is loaded for it.

        Args:
            samples: Number of this process's samples to pass over.
        """
        self._skipped = samples

    def __iter__(self) -> Iterator[SampleAddress]:
        start, self._skipped = self._skipped, 0
        if isinstance(self.dataset, Source) and self.dataset.is_stream:
            stop = None if self.infinite else len(self)
            for position in itertools.islice(itertools.count(), start, stop):
                yield SampleAddress(position, self.epoch, self.seed)
            return
        passed = 0
        if self.infinite:
            passed, start = divmod(start, len(self))
        for epoch in itertools.count(self.epoch + passed):
            share = self._indices(epoch)[start:]
            for part in share.split(_AT_ONCE) if len(share) else ():
                for index in part.tolist():
                    yield SampleAddress(index, epoch, self.seed)
            if not self.infinite:
                return
            start = 0

    def _indices(self, epoch: int) -> Tensor:
        n = self._count
        if self.shuffle:
            draws = generator(self.seed, epoch, 'order')
            order = torch.randperm(n, generator=draws)
        else:
            order = torch.arange(n)
        if n < len(self.dataset):
            order = order * len(self.dataset) // n
        padded = order.repeat(-(-len(self) * self.world_size // n))
        share = padded[: len(self) * self.world_size]
        return share[self.rank :: self.world_size]
