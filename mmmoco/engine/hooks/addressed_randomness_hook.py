from operator import length_hint
from typing import Any

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner

from mmmoco.engine.bare_model import two_phase_model
from mmmoco.engine.numbered_batches import NumberedBatches
from mmmoco.engine.screen import ABOUT
from mmmoco.engine.train_step import epoch_of
from mmmoco.functional import seed_global_generators
from mmmoco.registry import HOOKS


@HOOKS.register_module()
class AddressedRandomnessHook(Hook):
    """Give every iteration its own random numbers, whatever came before.

    Tells the model which iteration comes, and seeds the global generators
    from (seed, iteration, rank), so that dropout and the like continue after
    a resume as if nothing had happened.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Continue within the epoch, if a run stopped there.

        mmengine would begin the epoch again; its iteration-based loop skips
        by itself.
        """
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            return
        loader = runner.train_dataloader
        done = runner.iter - runner.epoch * len(loader)
        batches = loader.batch_sampler
        numbered = isinstance(batches, NumberedBatches)
        if done > 0 and (numbered or hasattr(loader.sampler, 'skip')):
            if numbered:
                batches.skipped = done
            else:
                loader.sampler.skip(done * loader.batch_size)
            runner.train_loop.first_batch = done
            runner.logger.info(
                f'Continuing epoch {runner.epoch + 1} after {done} of '
                f'{len(loader)} batches.',
                extra=ABOUT,
            )

    def before_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Set the address of the coming iteration."""
        step, rank = runner.iter, get_rank()
        model = two_phase_model(runner)
        if model is not None:
            length = length_hint(runner.train_dataloader)  # 0: unknown
            epoch = epoch_of(step, length)
            model.set_address(runner.seed, step, rank, epoch)
        seed_global_generators(runner.seed, step, rank, 'step')
