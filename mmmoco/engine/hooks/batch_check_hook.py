from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmmoco.engine.bare_model import bare_model
from mmmoco.engine.batch_checks import check_loader, check_splits
from mmmoco.private_names import accumulation_of
from mmmoco.registry import HOOKS


@HOOKS.register_module()
class GuardHook(Hook):
    """Hold the data set and SplitBN against the batch, before training.

    What concerns the dictionary, the key encoder and the learning rate is
    checked where those belong: by their hooks and by the runner.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Check.

        Raises:
            ValueError: If a batch cannot be split.
        """
        loader = runner.train_dataloader
        check_splits(bare_model(runner), loader.batch_size)
        accumulation = accumulation_of(runner.optim_wrapper)
        warning = check_loader(loader, runner.world_size, accumulation)
        if warning:
            runner.logger.warning(warning)
