"""Samples that know where in the run they are drawn.

The sampler yields addresses instead of bare indices; the data set seeds the
global generators from the address before its transforms run. What a sample
looks like then depends on seed, epoch and sample alone: not on the worker,
the number of workers, or on what was loaded before.
"""

import itertools
from abc import abstractmethod
from collections.abc import Iterator, Sequence, Sized
from typing import Any, NamedTuple

import torch
from mmengine.dist import get_dist_info
from torch.utils.data import Dataset, Sampler

from mmmoco.functional import generator, seed_global_generators
from mmmoco.registry import DATA_SAMPLERS

from .transforms.pipeline import build_pipeline


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


class AddressedDataset(Dataset[dict[str, Any]]):
    """A data set whose random transforms depend on the address alone.

    Args:
        pipeline: Configs of transforms, applied in order.
    """

    def __init__(self, pipeline: Sequence[dict[str, Any]] = ()) -> None:
        self.pipeline = build_pipeline(pipeline)

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def sample(self, index: int) -> dict[str, Any]:
        """Return what the first transform receives."""

    def __getitem__(self, item: int | SampleAddress) -> dict[str, Any]:
        """Return a transformed sample; a bare index has epoch 0, seed 0."""
        if not isinstance(item, SampleAddress):
            item = SampleAddress(int(item), epoch=0, seed=0)
        seed_global_generators(item.seed, item.epoch, item.index, 'view')
        result: dict[str, Any] = self.pipeline(self.sample(item.index))
        return result


@DATA_SAMPLERS.register_module()
class AddressedSampler(Sampler[SampleAddress]):
    """Yield this process's share of every epoch, as addresses.

    All processes get equally many samples: the last ones are repeated from
    the beginning of the permutation, so that no process waits for another.

    Args:
        dataset: The data set.
        shuffle: Permute it anew in every epoch.
        seed: Seed of the run (given by the runner).
        infinite: Go on with the next epoch by itself, for iteration-based
            loops.
    """

    def __init__(
        self,
        dataset: Sized,
        shuffle: bool = True,
        seed: int | None = None,
        infinite: bool = False,
    ) -> None:
        self.dataset = dataset
        self.shuffle = shuffle
        self.seed = 0 if seed is None else seed
        self.infinite = infinite
        self.epoch = 0
        self.rank, self.world_size = get_dist_info()

    def __len__(self) -> int:
        """Samples of one epoch on this process."""
        return -(-len(self.dataset) // self.world_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation; called by mmengine before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[SampleAddress]:
        epochs: Iterator[int] = iter([self.epoch])
        if self.infinite:
            epochs = itertools.count(self.epoch)
        for epoch in epochs:
            for index in self._indices(epoch):
                yield SampleAddress(index, epoch, self.seed)

    def _indices(self, epoch: int) -> list[int]:
        n = len(self.dataset)
        if self.shuffle:
            draws = generator(self.seed, epoch, 'order')
            order = torch.randperm(n, generator=draws)
        else:
            order = torch.arange(n)
        padded = order.repeat(-(-len(self) * self.world_size // n))
        share = padded[: len(self) * self.world_size]
        indices: list[int] = share[self.rank :: self.world_size].tolist()
        return indices
