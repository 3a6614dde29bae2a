"""Sources that can only be read from front to back, shard by shard.

A stream is cut into *lanes*: each process has several, and batch b of a
process comes from its lane b modulo their number. A data worker that is given
every n-th batch thus reads lanes of its own, without knowing of the others.

What a lane yields is a function of (seed, epoch, process, lane) alone: the
shards are permuted and dealt to all lanes, read one after the other, and
mixed by a shuffle buffer. So the position of a run is the number of batches
that it took; to resume, a lane passes over what was used, without decoding.
"""

import itertools
import os
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from mmengine.dist import get_dist_info
from torch.utils.data import get_worker_info

from mmmoco.functional import derive_seed, generator

from .addressed import SampleAddress
from .bad_files import UnreadableDataError
from .source import Source

T = TypeVar('T')


class Record(NamedTuple):
    """A sample that was met in a shard, not yet decoded.

    Attributes:
        name: What it is called in messages: shard and member.
        load: Returns what the first transform receives.
    """

    name: str
    load: Callable[[], dict[str, Any]]


class ShardStream(Source):
    """A data set that is read shard by shard, in a shuffled order.

    To be sampled by :class:`AddressedSampler` and loaded with
    ``drop_last=True``. A sample that cannot be read is replaced by the next
    one of its lane, which also appears in its own place.

    Args:
        num_shards: Number of shards.
        epoch_size: Samples of one epoch, over all processes. A lane whose
            shards hold fewer begins them again in another order; what is
            beyond is left for other epochs.
        lanes: Lanes of each process; None: one for each data worker. A fixed
            number makes the order independent of the workers.
        buffer_size: Samples among which the next one is drawn.
        pipeline: Configs of transforms.
    """

    is_stream = True

    def __init__(
        self,
        num_shards: int,
        epoch_size: int,
        lanes: int | None = None,
        buffer_size: int = 1000,
        pipeline: Sequence[dict[str, Any]] = (),
    ) -> None:
        for name, value in (
            ('epoch_size', epoch_size),
            ('lanes', 1 if lanes is None else lanes),
            ('buffer_size', buffer_size),
        ):
            if value < 1:
                raise ValueError(f'{name}={value}: must be at least 1.')
        self.num_shards, self.epoch_size = num_shards, epoch_size
        self.lanes, self.buffer_size = lanes, buffer_size
        super().__init__(pipeline)
        # Here, since data workers do not belong to the process group.
        self.rank, self.world_size = get_dist_info()
        self._process = self._batch = 0
        self._open: dict[int, tuple[tuple[int, ...], _Lane]] = {}

    @abstractmethod
    def read_shard(self, shard: int) -> Iterator[Record]:
        """Go through a shard from front to back.

        Raises:
            OSError: If it cannot be read any further.
        """

    @abstractmethod
    def shard_name(self, shard: int) -> str:
        """Return what a shard is called in messages."""

    def __len__(self) -> int:
        """Samples of one epoch, over all processes."""
        return self.epoch_size

    def __getitem__(self, item: int | SampleAddress) -> dict[str, Any]:
        """Return one sample; a bare index has epoch 0, seed 0."""
        return self.__getitems__([item])[0]

    def __getitems__(
        self, items: Sequence[int | SampleAddress]
    ) -> list[dict[str, Any]]:
        """Return the samples of a batch; the data loader prefers this.

        Args:
            items: Consecutive positions in the stream of this process.

        Raises:
            UnreadableDataError: If hardly anything can be read.
        """
        if self._process != os.getpid():
            self._close()  # Forks would move each other's open files.
        addresses = [
            i if isinstance(i, SampleAddress) else SampleAddress(int(i), 0, 0)
            for i in items
        ]
        # Only the last batch of an epoch can be shorter.
        self._batch = max(self._batch, len(addresses))
        worker = get_worker_info()
        lanes = self.lanes or (worker.num_workers if worker else 1)
        index, epoch, seed = addresses[0]
        batch, offset = divmod(index, self._batch)
        place = (seed, epoch, batch % lanes, lanes)
        lane = self._lane(place)
        lane.go_to(batch // lanes * self._batch + offset)
        return [self._make(address, lane) for address in addresses]

    def _close(self) -> None:
        self._process, self._batch, self._open = os.getpid(), 0, {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave the open files out, when workers are spawned."""
        return self.__dict__ | {'_open': {}, '_process': 0}

    def _lane(self, place: tuple[int, int, int, int]) -> '_Lane':
        """Return the lane, kept open from its last batch."""
        number = place[2]
        known = self._open.get(number)
        if known is None or known[0] != place:
            known = self._open[number] = (
                place,
                _Lane(lambda: self._records(*place)),
            )
        return known[1]

    def _records(
        self, seed: int, epoch: int, lane: int, lanes: int
    ) -> Iterator[Record]:
        """Yield the records of a lane, again and again."""
        part = self.rank * lanes + lane
        for turn in itertools.count():
            draws = generator(seed, epoch, turn, 'shards')
            order = torch.randperm(self.num_shards, generator=draws)
            share = order[part :: self.world_size * lanes].tolist()
            address = (seed, epoch, turn, part, 'buffer')
            records = shuffled(
                itertools.chain.from_iterable(map(self._read, share)),
                self.buffer_size,
                np.random.default_rng(derive_seed(*address)),
            )
            empty = True
            for record in records:
                empty = False
                yield record
            if empty:
                names = [self.shard_name(shard) for shard in share[:3]]
                raise UnreadableDataError(
                    f'No sample could be read from {len(share)} of '
                    f'{self.num_shards} shards ({", ".join(names) or "none"}'
                    f'), the share of lane {part} of '
                    f'{self.world_size * lanes}.'
                )

    def _read(self, shard: int) -> Iterator[Record]:
        """Read a shard as far as it can be read."""
        try:
            yield from self.read_shard(shard)
        except OSError as error:
            self.bad_files.note(self.shard_name(shard), error)

    def _make(self, address: SampleAddress, lane: '_Lane') -> dict[str, Any]:
        place = address.epoch, self.rank, address.index, 'stream'
        result = self._first_readable(
            lambda attempt: lane.peek(attempt).load(),
            lambda attempt: lane.peek(attempt).name,
            address.seed,
            *place,
        )
        lane.step()
        return result


class _Lane:
    """A sequence of records with a position, and a look ahead."""

    def __init__(self, restart: Callable[[], Iterator[Record]]) -> None:
        self._restart = restart
        self._begin()

    def _begin(self) -> None:
        self._records = self._restart()
        self._ahead: deque[Record] = deque()
        self.position = 0

    def go_to(self, position: int) -> None:
        """Pass over records, without loading them."""
        if position < self.position:
            self._begin()
        while self.position < position:
            self.peek(0)
            self.step()

    def peek(self, distance: int) -> Record:
        """Return a record from here on, without moving."""
        while len(self._ahead) <= distance:
            self._ahead.append(next(self._records))
        return self._ahead[distance]

    def step(self) -> None:
        """Move on by one."""
        self._ahead.popleft()
        self.position += 1


def shuffled(
    items: Iterable[T], size: int, draws: np.random.Generator
) -> Iterator[T]:
    """Yield every item once, drawn from a buffer of the next ``size``.

    Args:
        items: What to shuffle.
        size: Of the buffer; 1 keeps the order.
        draws: Source of the random numbers.
    """
    rest = iter(items)
    buffer = list(itertools.islice(rest, size))
    for item in rest:
        place = int(draws.integers(len(buffer)))
        yield buffer[place]
        buffer[place] = item
    while buffer:
        place = int(draws.integers(len(buffer)))
        buffer[place], buffer[-1] = buffer[-1], buffer[place]
        yield buffer.pop()
