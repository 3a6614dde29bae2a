"""The hooks that write the state that ``loss()`` reads.

They act in ``after_train_iter``, only when the optimizer really stepped, and
before checkpoints are written (those run at VERY_LOW).
"""

import logging
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmmoco.engine.bare_model import bare_model
from mmmoco.registry import HOOKS


def _stepped(runner: Runner) -> bool:
    try:
        return bool(runner.optim_wrapper.stepped)
    except AttributeError:
        raise RuntimeError(
            f'{type(runner.optim_wrapper).__name__} does not tell whether a '
            'step was taken. Momentum contrast needs '
            "optim_wrapper=dict(type='ContrastOptimWrapper', …)."
        ) from None


@HOOKS.register_module()
class KeyEncoderUpdateHook(Hook):
    """Move the key encoder after every optimizer step (MoCo v1, eq. 2).

    m belongs to the coming iteration, so that the key parameters of every
    forward are those of the paper's order, which moves them just before the
    keys are encoded. m itself is stated in the model's config.

    Does nothing for a model without a key encoder (memory bank, end-to-end).
    """

    priority = 'ABOVE_NORMAL'

    def __init__(self) -> None:
        self._loaded: list[str] | None = None

    def after_load_checkpoint(
        self, runner: Runner, checkpoint: dict[str, Any]
    ) -> None:
        """Note what the loaded file held."""
        names = checkpoint.get('state_dict', checkpoint)
        self._loaded = [name.removeprefix('module.') for name in names]

    def before_train(self, runner: Runner) -> None:
        """Announce; complete a loaded file that held no key encoder.

        Raises:
            RuntimeError: If the key encoder requires a gradient.
        """
        model = bare_model(runner)
        if model.key_encoder is None:
            return
        model.check_key_encoder()
        prefix = f'{model.key_encoder_name}.'
        if self._loaded is not None and not any(
            name.startswith(prefix) for name in self._loaded
        ):
            model.reset_key_encoder()
            runner.logger.info(
                f'The loaded file holds no {prefix}*: the key encoder '
                'starts as a copy of the query encoder.'
            )
        model.announce(type(self).__name__)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Update after a real step, and log m."""
        model = bare_model(runner)
        if model.key_encoder is None:
            return
        m = model.momentum_at((runner.iter + 1) / runner.max_iters)
        if _stepped(runner):
            model.update_key_encoder(m)
        runner.message_hub.update_scalar('train/m', m)


@HOOKS.register_module()
class DictionaryUpdateHook(Hook):
    """Write the keys staged since the last optimizer step, after it.

    Before training it holds the dictionary against batch and data set.
    """

    priority = 'NORMAL'

    def before_train(self, runner: Runner) -> None:
        """Announce, and check the sizes.

        Raises:
            ValueError: If one step brings more keys than the queue holds, or
                a memory bank has fewer entries than the data set images.
        """
        model = bare_model(runner)
        loader = runner.train_dataloader
        batch = loader.batch_size * runner.world_size
        accumulation = runner.optim_wrapper._accumulative_counts
        try:
            samples = len(loader.dataset)
        except TypeError:
            samples = 0
        keys = batch * accumulation * model.keys_per_image
        warning = model.dictionary.check(keys, samples)
        if warning:
            runner.logger.log(logging.WARNING, warning)
        model.announce(type(self).__name__)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Commit after a real step; forget after a skipped one."""
        if _stepped(runner):
            bare_model(runner).commit_keys()
        elif runner.optim_wrapper.should_update():
            bare_model(runner).discard_keys()
