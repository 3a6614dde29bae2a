from mmengine.hooks import Hook
from mmengine.runner import Runner


class RunHook(Hook):
    """What our runner asks of hooks, beside mmengine's points.

    A hook overrides what it needs; everything does nothing by itself.

    Attributes:
        verifies_weights: Whether the hook holds pre-trained parts to their
            files, so that the runner leaves it to that.
    """

    verifies_weights = False

    def step_done(self) -> None:
        """A step is done, and no ``after_train_iter`` was called yet."""

    def settle(self, runner: Runner, error: Exception) -> None:
        """An error ends the training: end the run in another way, or not."""

    def release(self) -> None:
        """The training is over, whatever ended it: give back what is held."""
