"""Schedules that mmengine has not, as MoCo's authors wrote them.

Both compute each value from the step alone, not from the value before.
"""

import math
from typing import Any, ClassVar

from mmengine.optim import _ParamScheduler
from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin

from mmmoco.registry import PARAM_SCHEDULERS


@PARAM_SCHEDULERS.register_module()
class WarmupLR(LRSchedulerMixin, _ParamScheduler):
    """Warm-up of MoCo v3: at step t of W the rate is lr * t / W.

    It begins at 0 and reaches the full rate at step W, where the next
    schedule begins. mmengine's LinearLR is there one step earlier.

    Args:
        optimizer: Whose rate is set.
        end: Step at which the full rate is reached.
        begin: First step.
        by_epoch: Count epochs; the whole first one has a rate of 0 then, so
            it is for ``convert_to_iter_based`` only.
        **kwargs: As for every scheduler of mmengine.

    Raises:
        ValueError: If it would count epochs.
    """

    #: What earlier versions had in its place, and how its state is told.
    before: ClassVar[dict[str, Any]] = dict(type='LinearLR')
    sign = 'start_factor'

    def __init__(
        self,
        optimizer: Any,
        end: int,
        begin: int = 0,
        by_epoch: bool = True,
        **kwargs: Any,
    ) -> None:
        if by_epoch:
            raise ValueError(
                'WarmupLR counts iterations: set convert_to_iter_based=True '
                '(begin and end are in epochs then), or by_epoch=False.'
            )
        self.total_iters = end - begin
        # The step that reaches the full rate is still its own.
        super().__init__(
            optimizer, begin=begin, end=end + 1, by_epoch=by_epoch, **kwargs
        )

    @classmethod
    def build_iter_from_epoch(cls, **kwargs: Any) -> 'WarmupLR':
        """Build it from ``begin`` and ``end`` in epochs."""
        length = kwargs.pop('epoch_length')
        for name in ('begin', 'end'):
            kwargs[name] = int(kwargs.get(name, 0) * length)
        return cls(**{**kwargs, 'by_epoch': False})

    def _get_value(self) -> list[float]:
        done = min(self.last_step / self.total_iters, 1.0)
        return [value * done for value in self.base_values]


@PARAM_SCHEDULERS.register_module()
class CosineFromOneLR(LRSchedulerMixin, _ParamScheduler):
    """Half a cosine, with steps counted from 1: MoCo's CIFAR-10 recipe.

    The first epoch has the rate that the others' second has, and the last
    one has the lowest.

    Args:
        optimizer: Whose rate is set.
        T_max: Steps of the half cosine.
        eta_min: Where it ends.
        **kwargs: As for every scheduler of mmengine.
    """

    before: ClassVar[dict[str, Any]] = dict(type='CosineAnnealingLR')
    sign = 'eta_min_ratio'

    def __init__(
        self, optimizer: Any, T_max: int, eta_min: float = 0.0, **kwargs: Any
    ) -> None:
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, **kwargs)

    def _get_value(self) -> list[float]:
        done = min((self.last_step + 1) / self.T_max, 1.0)
        part = (1 + math.cos(math.pi * done)) / 2
        return [
            self.eta_min + (value - self.eta_min) * part
            for value in self.base_values
        ]
