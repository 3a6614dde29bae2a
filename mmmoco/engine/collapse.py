"""When a run counts as collapsed, and what to look at then."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from mmmoco.engine.endings import ExpectedEnd


class CollapseError(ExpectedEnd):
    """Training was stopped because it had collapsed."""


@dataclass(frozen=True)
class Health:
    """What the monitors measured at one iteration.

    Attributes:
        loss: Of the iteration.
        spread: Standard deviation of the features, times √C.
        rank: Effective rank of the features.
        full_rank: The highest effective rank that the sample can have.
        skipped: Optimizer steps skipped since the last check.
    """

    loss: float
    spread: float
    rank: float
    full_rank: int
    skipped: int = 0


@dataclass
class CollapseWatch:
    """Decides from a series of measurements whether to raise the alarm.

    The limits were set by measured runs, which docs/monitoring.md shows.

    Args:
        min_spread: Below it the features are nearly one vector.
        min_rank: The same for the effective rank, as a share of the highest
            possible one; a rank below 2 is too low in any case.
        patience: Checks in a row that must fail. What is not finite counts
            at once.
        grace: Iterations at the start of a run that do not count, since an
            untrained network may give nearly the same features for all
            images.
    """

    min_spread: float = 0.15
    min_rank: float = 0.05
    patience: int = 3
    grace: int = 100
    _failed: int = field(default=0, init=False)

    def judge(self, health: Health, iteration: int) -> str | None:
        """Return what is wrong, or None.

        Args:
            health: The newest measurement.
            iteration: Of the run, from 1.
        """
        broken = self._broken(health)
        if broken:
            return broken
        if iteration <= self.grace:
            return None
        collapsed = self._collapsed(health)
        self._failed = self._failed + 1 if collapsed else 0
        if self._failed < self.patience:
            return None
        return collapsed

    @staticmethod
    def _broken(health: Health) -> str | None:
        values: Sequence[tuple[str, float]] = (
            ('the loss', health.loss),
            ('the spread of the features', health.spread),
            ('the effective rank of the features', health.rank),
        )
        for name, value in values:
            if not math.isfinite(value):
                return (
                    f'NOT FINITE: {name} is {value}. Look at the learning '
                    'rate (divide it by 10), its warm-up, the precision '
                    "(optim_wrapper.dtype='float32'), and at the images "
                    '(mmmoco verify).'
                )
        if health.skipped:
            return (
                f'NOT FINITE: {health.skipped} optimizer step(s) were '
                'skipped since the last check, because their gradient was '
                'not finite. Look at the learning rate and the precision.'
            )
        return None

    def _collapsed(self, health: Health) -> str | None:
        limit = max(2.0, self.min_rank * health.full_rank)
        if health.spread < self.min_spread:
            found = (
                f'the standard deviation of the features is '
                f'{health.spread:.3f} of 1/sqrt(C) (alarm below '
                f'{self.min_spread:g})'
            )
        elif health.rank < limit:
            found = (
                f'the effective rank of the features is {health.rank:.1f} of '
                f'{health.full_rank} (alarm below {limit:.1f})'
            )
        else:
            return None
        return (
            f'COLLAPSE: {found}: all images get nearly the same features. '
            'Look at m (0.99 … 0.999; near 0 the keys follow the queries), '
            'at the learning rate, at the images (are they all alike? '
            'mmmoco verify), and at whether pos_sim and neg_sim '
            'are both near 1.'
        )
