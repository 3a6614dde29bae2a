"""Mean, spread and percentiles of every channel, one image at a time."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Values kept of a float image for the percentiles.
_KEPT = 256
_MOST_KEPT = 2_000_000


class ChannelStatistics:
    """Sums over all pixels of all images, by channel, in float64.

    Integers are counted value by value, so their percentiles are exact;
    those of floats come from up to 256 pixels of each image, spread evenly.
    """

    def __init__(self) -> None:
        self.images = self.pixels = 0
        self._mean: NDArray[np.float64] = np.zeros(0)
        self._squares: NDArray[np.float64] = np.zeros(0)
        self._low: NDArray[Any] = np.zeros(0)
        self._high: NDArray[Any] = np.zeros(0)
        self._counts: NDArray[np.int64] | None = None
        self._kept: list[NDArray[np.float32]] = []

    def add(self, image: NDArray[Any]) -> None:
        """Add an image H×W×C.

        Raises:
            ValueError: If its number of channels differs from the others'.
        """
        x = image.reshape(-1, image.shape[2])
        n, mean = len(x), x.mean(0, dtype=np.float64)
        squares = ((x - mean) ** 2).sum(0)
        if self.pixels == 0:
            self._mean = np.zeros(x.shape[1])
            self._squares = np.zeros(x.shape[1])
            self._low, self._high = x.min(0), x.max(0)
        if len(mean) != len(self._mean):
            raise ValueError(
                f'An image has {len(mean)} channels, the others have '
                f'{len(self._mean)}.'
            )
        # Chan's update: no difference of large sums.
        total, delta = self.pixels + n, mean - self._mean
        self._squares += squares + delta**2 * (self.pixels * n / total)
        self._mean += delta * (n / total)
        self._low = np.minimum(self._low, x.min(0))
        self._high = np.maximum(self._high, x.max(0))
        self.images, self.pixels = self.images + 1, total
        if image.dtype in (np.uint8, np.uint16):
            self._count(x)
        elif len(self._kept) * _KEPT < _MOST_KEPT:
            step = max(1, n // _KEPT)
            self._kept.append(x[step // 2 :: step].astype(np.float32))

    def _count(self, x: NDArray[Any]) -> None:
        levels = np.iinfo(x.dtype).max + 1
        if self._counts is None:
            self._counts = np.zeros((x.shape[1], levels), np.int64)
        for channel, values in zip(self._counts, x.T, strict=True):
            channel += np.bincount(values, minlength=levels)

    @property
    def mean(self) -> NDArray[np.float64]:
        """Per channel."""
        return self._mean

    @property
    def std(self) -> NDArray[np.float64]:
        """Per channel, over all pixels."""
        return np.sqrt(self._squares / max(self.pixels, 1))

    @property
    def low(self) -> NDArray[Any]:
        """Smallest value per channel."""
        return self._low

    @property
    def high(self) -> NDArray[Any]:
        """Largest value per channel."""
        return self._high

    def percentile(self, percent: float) -> NDArray[np.float64]:
        """Return the value per channel below which ``percent`` lie."""
        if self._counts is None:
            return np.percentile(np.concatenate(self._kept), percent, axis=0)
        sums = self._counts.cumsum(1)
        ranks = np.maximum(1, np.ceil(percent / 100 * sums[:, -1]))
        found = [
            np.searchsorted(s, r) for s, r in zip(sums, ranks, strict=True)
        ]
        return np.array(found, np.float64)
