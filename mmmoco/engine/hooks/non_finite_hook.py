from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmmoco.engine.endings import ExpectedEnd, save_at_end
from mmmoco.engine.optim import ContrastOptimWrapper
from mmmoco.registry import HOOKS


class NonFiniteError(ExpectedEnd):
    """Training was stopped because step after step was not finite."""


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Stop a run that only skips steps.

    A step with a non-finite loss or gradient is skipped and leaves the state
    as it was; now and then that is harmless. Many in a row mean that the run
    is broken, and computing on is a waste.

    Args:
        max_in_a_row: Stop after so many. The loss scale of float16 may need
            about 20 steps to come down.

    Raises:
        ValueError: If it is not positive.
    """

    priority = 'VERY_LOW'

    def __init__(self, max_in_a_row: int = 50) -> None:
        if max_in_a_row < 1:
            raise ValueError(
                f'NonFiniteHook(max_in_a_row={max_in_a_row}): must be at '
                'least 1.'
            )
        self.max_in_a_row = max_in_a_row

    def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Save and stop, if it was the last one allowed.

        Raises:
            NonFiniteError: Ends the run; names the checkpoint.
        """
        wrapper = runner.optim_wrapper
        if not isinstance(wrapper, ContrastOptimWrapper):
            return
        skipped = wrapper.skipped_in_a_row
        if skipped < self.max_in_a_row or not wrapper.should_update():
            return
        name = f'iter_{runner.iter + 1}_non_finite.pth'
        raise NonFiniteError(
            f'Stopped at iteration {runner.iter + 1}: {skipped} steps in a '
            'row had a non-finite loss or gradient (NonFiniteHook.'
            f'max_in_a_row={self.max_in_a_row}). The state, which is that '
            f'after the last good step, {save_at_end(runner, name)}: '
            'start from it with --load-from and a lower learning rate '
            "(optim_wrapper.optimizer.lr), or optim_wrapper.dtype='float32'; "
            'mmmoco verify looks at the images.'
        )
