import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

from mmmoco.registry import LOOPS

from .numbered_batches import EndlessBatches, number_batches


class DataWait:
    """Batches; tells other threads whether the training waits for one.

    Only then is the state that of a finished iteration. For the rest it is
    what an iterator of the batches is.

    Attributes:
        since: When the waiting began, None while the training computes.
    """

    def __init__(self) -> None:
        self.since: float | None = None
        self._lock = threading.Lock()
        self._batches: Iterator[Any] = iter(())

    def over(self, batches: Iterator[Any]) -> 'DataWait':
        """Wait for these batches from now on."""
        self._batches = batches
        return self

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        self.since = time.monotonic()
        try:
            return next(self._batches)
        finally:
            with self._lock:
                self.since = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batches, name)

    @contextmanager
    def held(self) -> Iterator[float | None]:
        """Let the training not go on; give when its waiting began."""
        with self._lock:
            yield self.since


@LOOPS.register_module()
class ContrastEpochLoop(EpochBasedTrainLoop):
    """mmengine's loop over epochs, which may begin within one.

    Batches of a continued epoch keep their numbers, so that logs and
    intervals are those of a run that never stopped.

    Attributes:
        first_batch: Number of the first batch that the data loader yields in
            the coming epoch.
        data_wait: Whether it waits for data.
    """

    first_batch = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.data_wait = DataWait()
        number_batches(self.dataloader, self.runner, endless=False)

    def run_epoch(self) -> None:
        """Iterate one epoch."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        batches = self.data_wait.over(iter(self.dataloader))
        for number, batch in enumerate(batches, self.first_batch):
            self.run_iter(number, batch)
        self.first_batch = 0
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1


@LOOPS.register_module()
class ContrastIterLoop(IterBasedTrainLoop):
    """mmengine's loop over iterations, which tells when it waits for data.

    Attributes:
        data_wait: Whether it waits for data.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.data_wait = DataWait()
        batches: Any = vars(self)['dataloader_iterator']
        if number_batches(self.dataloader, self.runner, endless=True):
            batches = EndlessBatches(self.dataloader)
        self.dataloader_iterator = self.data_wait.over(batches)
