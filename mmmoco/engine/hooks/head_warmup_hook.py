from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn

from mmmoco.engine.bare_model import bare_model
from mmmoco.engine.optim import ContrastOptimWrapper
from mmmoco.engine.screen import ABOUT
from mmmoco.private_names import accumulation_of
from mmmoco.registry import HOOKS


@HOOKS.register_module()
class HeadWarmupHook(Hook):
    """Train the heads alone at first, for a backbone that comes trained.

    The gradients of random heads would destroy what it knows. For so many
    iterations those of the backbone are dropped before each optimizer step:
    its weights stay bit for bit, undecayed, and the optimizer has no state of
    them. Its BatchNorm works as in all training: batches are normalised by
    themselves, so that the heads see what they will see later, and the
    running statistics become those of the new images.

    Args:
        iterations: With the backbone frozen, counted from the first of the
            run, accumulation included.

    Raises:
        ValueError: If ``iterations`` is negative.
    """

    priority = 'VERY_HIGH'

    def __init__(self, iterations: int) -> None:
        if iterations < 0:
            raise ValueError(
                f'HeadWarmupHook(iterations={iterations}): at least 0.'
            )
        self.iterations = iterations

    def before_train(self, runner: Runner) -> None:
        """See that the run has what it takes.

        Raises:
            ValueError: If the run ends before the backbone learns.
            RuntimeError: If model or optimizer wrapper is of another kind.
        """
        model, wrapper = bare_model(runner), runner.optim_wrapper
        if not isinstance(getattr(model, 'backbone', None), nn.Module):
            raise RuntimeError(
                f'HeadWarmupHook: {type(model).__name__} has no backbone.'
            )
        if not isinstance(wrapper, ContrastOptimWrapper):
            raise RuntimeError(
                f'HeadWarmupHook: {type(wrapper).__name__} freezes nothing. '
                "Take optim_wrapper=dict(type='ContrastOptimWrapper', …)."
            )
        if self.iterations >= runner.max_iters:
            raise ValueError(
                f'HeadWarmupHook(iterations={self.iterations}): the run has '
                f'{runner.max_iters}, so the backbone would learn nothing.'
            )
        if runner.iter < self.iterations:
            runner.logger.info(
                f'The heads learn alone up to iteration {self.iterations}.',
                extra=ABOUT,
            )

    def after_load_checkpoint(
        self, runner: Runner, checkpoint: dict[str, Any]
    ) -> None:
        """Let a state be resumed that the backbone has no moments in."""
        done = (checkpoint.get('meta') or {}).get('iter')
        state = checkpoint.get('optimizer')
        skipped = 0
        if isinstance(state, dict):
            skipped = state.get('skipped_in_a_row', 0)
        if isinstance(done, int) and isinstance(skipped, int):
            # The last step that was taken tells.
            done -= skipped * accumulation_of(runner.optim_wrapper)
            self._freeze(runner, done <= self.iterations)

    def before_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Freeze the backbone, or no longer."""
        self._freeze(runner, runner.iter < self.iterations)

    def _freeze(self, runner: Runner, frozen: bool) -> None:
        wrapper, model = runner.optim_wrapper, bare_model(runner)
        if isinstance(wrapper, ContrastOptimWrapper):
            wrapper.frozen = [*model.backbone.parameters()] if frozen else []
