from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmmoco.registry import HOOKS


@HOOKS.register_module()
class MonitorHook(Hook):
    """Log images per second and the gradient norm beside the loss.

    The similarities of the look-up come from the loss itself.
    """

    priority = 'NORMAL'

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Put the scalars where the log processor finds them."""
        hub = runner.message_hub
        batch = len(data_batch['ids']) if data_batch else 0
        if 'train/time' in hub.log_scalars:
            seconds = hub.get_scalar('train/time').mean(50)
            rate = batch * runner.world_size / max(seconds, 1e-9)
            hub.update_scalar('train/images_per_s', round(rate, 1))
        norm = getattr(runner.optim_wrapper, 'grad_norm', None)
        if norm is not None and runner.optim_wrapper.should_update():
            hub.update_scalar('train/grad_norm', norm)
