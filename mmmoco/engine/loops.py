from mmengine.runner import EpochBasedTrainLoop

from mmmoco.registry import LOOPS


@LOOPS.register_module()
class ContrastEpochLoop(EpochBasedTrainLoop):
    """mmengine's loop over epochs, which may begin within one.

    Batches of a continued epoch keep their numbers, so that logs and
    intervals are those of a run that never stopped.

    Attributes:
        first_batch: Number of the first batch that the data loader yields in
            the coming epoch.
    """

    first_batch = 0

    def run_epoch(self) -> None:
        """Iterate one epoch."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        for number, batch in enumerate(self.dataloader, self.first_batch):
            self.run_iter(number, batch)
        self.first_batch = 0
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1
