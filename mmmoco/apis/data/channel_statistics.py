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
    What has no value (NaN, infinite, or said to be missing) counts nowhere
    but in ``missing``.

    Attributes:
        mean: Per channel.
        low: Smallest value per channel.
        high: Largest value per channel.
    """

    def __init__(self) -> None:
        self.images = self.pixels = 0
        # One value for all channels, until an image tells how many there are.
        self._known: NDArray[np.int64] = np.zeros(1, np.int64)
        self.mean: NDArray[np.float64] = np.zeros(1)
        self._squares: NDArray[np.float64] = np.zeros(1)
        self.low: NDArray[Any] = np.full(1, np.inf)
        self.high: NDArray[Any] = np.full(1, -np.inf)
        self._counts: NDArray[np.int64] | None = None
        self._kept: list[NDArray[np.float32]] = []

    def add(
        self, image: NDArray[Any], missing: NDArray[np.bool_] | None = None
    ) -> None:
        """Add an image.

        Args:
            image: H×W×C.
            missing: H×W×C, where it has no value besides NaN.

        Raises:
            ValueError: If its number of channels differs from the others'.
        """
        channels = image.shape[2]
        if self.images and channels != len(self.mean):
            raise ValueError(
                f'An image has {channels} channels, the others have '
                f'{len(self.mean)}.'
            )
        x = image.reshape(-1, channels)
        there = np.ones(x.shape, np.bool_)
        if missing is not None:
            there = ~missing.reshape(x.shape)
        if x.dtype.kind == 'f':
            there &= np.isfinite(x)
        self._add_moments(x, there)
        self.images, self.pixels = self.images + 1, self.pixels + len(x)
        if image.dtype in (np.uint8, np.uint16):
            self._count(x, there)
        elif len(self._kept) * _KEPT < _MOST_KEPT:
            step = max(1, len(x) // _KEPT)
            some = slice(step // 2, None, step)
            kept = np.where(there[some], x[some], np.nan)
            self._kept.append(kept.astype(np.float32))

    def _add_moments(self, x: NDArray[Any], there: NDArray[np.bool_]) -> None:
        n = there.sum(0)
        full = np.where(there, x, 0)
        mean = full.sum(0, dtype=np.float64) / np.maximum(n, 1)
        squares = np.where(there, full - mean, 0.0) ** 2
        # Chan's update: no difference of large sums.
        total = np.maximum(self._known + n, 1)
        delta = mean - self.mean
        between = delta**2 * (self._known * n / total)
        self._squares = self._squares + (squares.sum(0) + between)
        self.mean = self.mean + delta * (n / total)
        self._known = self._known + n
        low = np.where(there, x, np.inf).min(0)
        high = np.where(there, x, -np.inf).max(0)
        self.low = np.minimum(self.low, low)
        self.high = np.maximum(self.high, high)

    def _count(self, x: NDArray[Any], there: NDArray[np.bool_]) -> None:
        levels = np.iinfo(x.dtype).max + 1
        if self._counts is None:
            self._counts = np.zeros((x.shape[1], levels), np.int64)
        for channel, values, known in zip(
            self._counts, x.T, there.T, strict=True
        ):
            channel += np.bincount(values[known], minlength=levels)

    @property
    def missing(self) -> NDArray[np.int64]:
        """Pixels per channel that have no value."""
        return self.pixels - self._known

    @property
    def std(self) -> NDArray[np.float64]:
        """Per channel, over all pixels that have a value."""
        return np.sqrt(self._squares / np.maximum(self._known, 1))

    def percentile(self, percent: float) -> NDArray[np.float64]:
        """Return the value per channel below which ``percent`` lie."""
        if self._counts is None:
            kept = np.concatenate(self._kept)
            return np.nanpercentile(kept, percent, axis=0)
        sums = self._counts.cumsum(1)
        ranks = np.maximum(1, np.ceil(percent / 100 * sums[:, -1]))
        found = [
            np.searchsorted(s, r) for s, r in zip(sums, ranks, strict=True)
        ]
        return np.array(found, np.float64)
