"""Any data set read as ours are: each sample draws by its place in the run.

Transforms of other libraries draw from the global generators, those of a
worker from the seed that it was started with. A run that goes on has other
workers; so the generators are seeded for every sample, by a number that its
batch carries.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from mmengine.dist import get_rank
from torch.utils.data import DataLoader, Sampler

from mmmoco.functional import seed_global_generators
from mmmoco.private_names import set_batches


class Batch(list[Any]):
    """Indices of a batch, and what its samples draw by.

    Attributes:
        address: Seed of the run, number of the batch, rank of the process.
    """

    address: tuple[int, int, int]


class NumberedBatches(Sampler[list[Any]]):
    """A batch sampler whose batches know their number in the run.

    For the rest it is the one that it numbers.

    Args:
        batches: The batch sampler.
        runner: That iterates, or what has its seed and epoch.
        endless: Go through the data again and again.

    Attributes:
        skipped: How many batches to leave out when it is next begun; nothing
            is loaded for them.
    """

    def __init__(
        self, batches: Iterable[list[Any]], runner: Any, endless: bool
    ) -> None:
        self.batches: Any = batches
        self.runner = runner
        self.endless = endless
        self.skipped = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(vars(self)['batches'], name)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        left, self.skipped = self.skipped, 0
        number = 0 if self.endless else self.runner.epoch * len(self)
        epoch, begun = 0, -1
        # A data set without a batch would be gone through forever.
        while begun < number:
            begun = number
            for indices in self.batches:
                if left:
                    left -= 1
                else:
                    batch = Batch(indices)
                    batch.address = self.runner.seed, number, get_rank()
                    yield batch
                number += 1
            if not self.endless:
                return
            epoch += 1
            if hasattr(self.sampler, 'set_epoch'):
                self.sampler.set_epoch(epoch)


class EndlessBatches:
    """What an iteration-based loop reads from a loader of such batches.

    Args:
        loader: From :func:`number_batches`.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._loader = loader
        self._iterator: Iterator[Any] | None = None

    def skip_iter(self, count: int) -> None:
        """Begin after some batches, for a run that goes on."""
        self._loader.batch_sampler.skipped = count  # type: ignore

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        # Not before it is known what is skipped: workers read ahead.
        self._iterator = self._iterator or iter(self._loader)
        return next(self._iterator)


def number_batches(
    loader: DataLoader[Any], runner: Any, endless: bool
) -> bool:
    """Let a loader read numbered batches; ours have addresses already.

    Args:
        loader: Of the training.
        runner: That iterates, or what has its seed and epoch.
        endless: Go through the data again and again.

    Returns:
        Whether it does: not for streams.
    """
    dataset: Any = loader.dataset
    ours = hasattr(dataset, 'is_stream')
    if ours or loader.batch_sampler is None:
        return False
    set_batches(loader, NumberedBatches(loader.batch_sampler, runner, endless))
    dataset.__getitems__ = partial(_read, dataset)
    return True


def _read(dataset: Any, batch: Batch) -> list[Any]:
    """Read the samples of a batch: torch asks a data set that has it."""
    samples = []
    for place, index in enumerate(batch):
        seed_global_generators(*batch.address, place, 'sample')
        samples.append(dataset[index])
    return samples
