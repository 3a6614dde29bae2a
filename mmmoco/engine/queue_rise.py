"""The loss of the first iterations, which rises, and nothing is wrong."""

from torch import Tensor

#: Parts of the time that the queue takes to fill, and how much a mean over
#: one of them must be above the first one to be called a rise.
PARTS, RISE = 8, 0.02


class QueueRise:
    """Notes once when the loss rises while the queue fills with real keys.

    A queue begins with random vectors, which are easily told from a key.
    The more of them are keys of images, the harder the look-up becomes.

    Args:
        full: Iterations until the queue holds no random vector.
    """

    def __init__(self, full: int) -> None:
        self.full = full
        self._part = full // PARTS  # 0: too soon full to be seen.
        self._sum: Tensor | float = 0.0
        self._count = 0
        self._first: float | None = None
        self._done = False

    def see(self, iteration: int, loss: Tensor) -> str | None:
        """Take the loss of an iteration, counted from 1.

        Returns:
            What to say, the first time that there is something.
        """
        if self._done or not self._part or iteration > self.full + self._part:
            return None
        # Summed where it lies; the device is asked once in a part.
        self._sum, self._count = self._sum + loss, self._count + 1
        if self._count < self._part:
            return None
        mean = float(self._sum) / self._count
        self._sum, self._count = 0.0, 0
        if self._first is None:
            self._first = mean
            return None
        self._done = mean > self._first * (1 + RISE)
        if not self._done:
            return None
        return (
            f'The loss rises ({self._first:.2f} first, {mean:.2f} now) while '
            'the queue fills with real keys in the place of random ones, '
            f'until iteration {self.full}: that is as it should be; later it '
            'should fall.'
        )
