"""What all our data sets have: a pipeline, classes, and bad files replaced."""

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset, get_worker_info

from mmmoco.functional import seed_global_generators

from .bad_files import MAX_ATTEMPTS, BadFileLog, UnreadableDataError, reason_of
from .transforms.pipeline import build_pipeline

Results = dict[str, Any]


class Source(Dataset[Results]):
    """A data set whose random transforms depend on an address alone.

    Args:
        pipeline: Configs of transforms, applied in order.

    Attributes:
        bad_files: Where bad files are noted.
        classes: Names of the classes; empty if nothing is known of them.
        is_stream: Whether the data set orders its samples by itself.
        grouped: Whether its samples have a ``'group'``, a number; −1: none.
        groups: These numbers, where they are known beforehand.
    """

    classes: tuple[str, ...] = ()
    is_stream = False
    grouped = False
    groups: npt.NDArray[np.int64] | None = None

    def __init__(self, pipeline: Sequence[dict[str, Any]] = ()) -> None:
        # A worker is one thread; several workers share the cores. Here, since
        # a forked worker that ends the threads of its parent waits forever.
        cv2.setNumThreads(0)
        self.pipeline = build_pipeline(pipeline)
        self.bad_files = BadFileLog()

    @property
    def metainfo(self) -> dict[str, Any]:
        """Names of the classes, as OpenMMLab's data sets tell them."""
        return {'classes': self.classes}

    def _transformed(
        self,
        load: Callable[[int], Results],
        attempt: int,
        seed: int,
        *address: int | str,
    ) -> Results:
        """Return a sample after the pipeline; every attempt has own draws.

        Raises:
            OSError: If it cannot be read, or a transform gives it up by
                returning None.
        """
        if get_worker_info() is not None and cv2.getNumThreads() > 1:
            cv2.setNumThreads(0)  # One that was spawned.
        draws = (*address, 'view', *([attempt] if attempt else []))
        seed_global_generators(seed, *draws)
        result: Results | None = self.pipeline(load(attempt))
        if result is None:
            raise OSError('a transform returned None')
        result['bad'] = attempt
        return result

    def _first_readable(
        self,
        load: Callable[[int], Results],
        name: Callable[[int], str],
        seed: int,
        *address: int | str,
    ) -> Results:
        """Try samples one after the other; note those that are bad.

        Args:
            load: Returns what the first transform receives, by attempt.
            name: Returns what the sample of an attempt is called.
            seed: Of the run.
            *address: Of the sample.

        Raises:
            UnreadableDataError: If none of them can be read.
        """
        for attempt in range(MAX_ATTEMPTS):
            try:
                return self._transformed(load, attempt, seed, *address)
            except OSError as error:
                bad, reason = name(attempt), reason_of(error)
                self.bad_files.note(bad, error)
        raise UnreadableDataError(
            f'{MAX_ATTEMPTS} samples in a row could not be read; the last '
            f'one was {bad!r}: {reason}'
        )
