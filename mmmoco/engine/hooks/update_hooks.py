"""The hooks that write the state that ``loss()`` reads.

They act in ``after_train_iter``, only when the optimizer really stepped, and
before checkpoints are written (those run at VERY_LOW).
"""

import logging
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmmoco.engine.bare_model import two_phase_model
from mmmoco.engine.train_step import move_key_encoder, write_dictionaries
from mmmoco.private_names import accumulation_of
from mmmoco.registry import HOOKS
from mmmoco.two_phase import TwoPhaseModel


def _model(runner: Runner) -> TwoPhaseModel:
    model = two_phase_model(runner)
    if model is None:
        raise RuntimeError(
            f'{type(runner.model).__name__} is no pre-training model of '
            'mmmoco: leave KeyEncoderUpdateHook and DictionaryUpdateHook out '
            'of custom_hooks, or derive it from '
            'mmmoco.two_phase.TwoPhaseModel.'
        )
    return model


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

    m itself is stated in the model's config. Does nothing for a model without
    a key encoder (memory bank, end-to-end, distillation).
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
        model = _model(runner)
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
        model = _model(runner)
        if model.key_encoder is None:
            return
        progress = (runner.iter + 1) / runner.max_iters
        m = move_key_encoder(model, progress, _stepped(runner))
        runner.message_hub.update_scalar('train/m', m)


@HOOKS.register_module()
class DictionaryUpdateHook(Hook):
    """Write the keys staged since the last optimizer step, after it.

    Before training it holds the dictionaries against batch and data set. Does
    nothing for a model without one.
    """

    priority = 'NORMAL'

    def before_train(self, runner: Runner) -> None:
        """Announce, and check the sizes.

        Raises:
            ValueError: If one step brings more keys than the queue holds, or
                a memory bank has fewer entries than the data set images.
        """
        model = _model(runner)
        if not model.dictionaries:
            return
        loader = runner.train_dataloader
        batch = loader.batch_size * runner.world_size
        accumulation = accumulation_of(runner.optim_wrapper)
        try:
            samples = len(loader.dataset)
        except TypeError:
            samples = 0
        for warning in model.check_keys(batch * accumulation, samples):
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
        model = _model(runner)
        if model.dictionaries:
            due = runner.optim_wrapper.should_update()
            write_dictionaries(model, _stepped(runner), due)
