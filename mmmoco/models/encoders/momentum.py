"""m, the weight of the old key parameters, over the training."""

import math

SCHEDULES = ('constant', 'cosine')


def check_momentum(m: float, schedule: str, allow_any_m: bool = False) -> None:
    """Refuse a momentum that was meant in the other convention.

    Args:
        m: Weight of the old key parameters, as in the papers.
        schedule: ``'constant'`` or ``'cosine'``.
        allow_any_m: Accept everything in [0, 1], for ablations.

    Raises:
        ValueError: If ``m`` or ``schedule`` is out of range.
    """
    if schedule not in SCHEDULES:
        raise ValueError(
            f'm_schedule={schedule!r} is unknown; use one of {SCHEDULES}.'
        )
    low = 0.0 if allow_any_m else 0.5
    if not low <= m <= 1.0:
        raise ValueError(
            f'm={m} is outside [{low:g}, 1]. Here m is the weight of the old '
            'key parameters, as in the papers (key = m * key + (1 - m) * '
            f'query; usual: 0.999). OpenMMLab\'s "momentum" is 1 - m: its '
            f'momentum={m} is m={1 - m:g} here. For an ablation outside the '
            'range set allow_any_m=True (0 <= m <= 1).'
        )


def momentum_at(m: float, schedule: str, progress: float) -> float:
    """Return m at a point of the training.

    Args:
        m: Value at the start.
        schedule: ``'constant'``, or ``'cosine'``: half a cosine from ``m``
            to 1 over the whole training without warm-up (MoCo v3, reference
            implementation).
        progress: Fraction of all iterations done, clipped to [0, 1].
    """
    if schedule == 'constant':
        return m
    progress = min(max(progress, 0.0), 1.0)
    return 1.0 - (1.0 - m) * (1.0 + math.cos(math.pi * progress)) / 2.0
