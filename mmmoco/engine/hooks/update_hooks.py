"""The hooks that write the state that ``loss()`` reads.

They act in ``after_train_iter``, only when the optimizer really stepped, and
before checkpoints are written (those run at VERY_LOW).
"""

from operator import length_hint
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmmoco.engine.bare_model import two_phase_model
from mmmoco.engine.groups import describe_groups
from mmmoco.engine.screen import ABOUT
from mmmoco.engine.train_step import move_key_encoder, write_dictionaries
from mmmoco.private_names import accumulation_of
from mmmoco.registry import HOOKS
from mmmoco.two_phase import TwoPhaseModel


class _UpdateHook(Hook):
    """Phase two of a model that has something to update."""

    def concerns(self, model: TwoPhaseModel) -> bool:
        """Whether the model has what this hook updates."""
        raise NotImplementedError

    def prepare(self, runner: Runner, model: TwoPhaseModel) -> None:
        """Do what comes before the training."""

    def act(self, runner: Runner, model: TwoPhaseModel, stepped: bool) -> None:
        """Do what comes after an iteration."""
        raise NotImplementedError

    def before_train(self, runner: Runner) -> None:
        """Look at the run, then announce.

        Raises:
            RuntimeError: If the model is of another library, or nobody tells
                whether the optimizer stepped.
        """
        name, model = type(self).__name__, two_phase_model(runner)
        if model is None:
            raise RuntimeError(
                f'{type(runner.model).__name__} is no pre-training model of '
                f'mmmoco: leave {name} out of custom_hooks, or derive it from '
                'mmmoco.two_phase.TwoPhaseModel.'
            )
        if not self.concerns(model):
            return
        if not hasattr(runner.optim_wrapper, 'stepped'):
            raise RuntimeError(
                f'{type(runner.optim_wrapper).__name__} does not tell whether '
                'a step was taken. Momentum contrast needs '
                "optim_wrapper=dict(type='ContrastOptimWrapper', …)."
            )
        self.prepare(runner, model)
        model.announce(name)

    def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Update, after a real step only."""
        model = two_phase_model(runner)
        if model is not None and self.concerns(model):
            self.act(runner, model, bool(runner.optim_wrapper.stepped))


@HOOKS.register_module()
class KeyEncoderUpdateHook(_UpdateHook):
    """Move the key encoder after every optimizer step (MoCo v1, eq. 2).

    m itself is stated in the model's config, and logged. A loaded file that
    holds no key encoder is completed by a copy of the query encoder.
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

    def concerns(self, model: TwoPhaseModel) -> bool:
        """Not with a memory bank, end-to-end, or a frozen teacher."""
        return model.key_encoder is not None

    def prepare(self, runner: Runner, model: TwoPhaseModel) -> None:
        """Complete what was loaded.

        Raises:
            RuntimeError: If an optimizer could move the key encoder.
        """
        prefix = f'{model.key_encoder_name}.'
        learnt = [
            name
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and name.startswith(prefix)
        ]
        if learnt:
            raise RuntimeError(
                f'{len(learnt)} parameters of the key encoder require a '
                f'gradient (first: {learnt[0]}). It moves by its average '
                'alone: do not unfreeze it.'
            )
        if self._loaded is not None and not any(
            name.startswith(prefix) for name in self._loaded
        ):
            model.reset_key_encoder()
            runner.logger.info(
                f'The loaded file holds no {prefix}*: the key encoder '
                'starts as a copy of the query encoder.',
                extra=ABOUT,
            )

    def act(self, runner: Runner, model: TwoPhaseModel, stepped: bool) -> None:
        """Update after a real step, and log m."""
        progress = (runner.iter + 1) / runner.max_iters
        m = move_key_encoder(model, progress, stepped)
        runner.message_hub.update_scalar('train/m', m)


@HOOKS.register_module()
class DictionaryUpdateHook(_UpdateHook):
    """Write the keys staged since the last optimizer step, after it.

    Before training it holds the dictionaries against batch and data set.
    """

    priority = 'NORMAL'

    def concerns(self, model: TwoPhaseModel) -> bool:
        """Not without a dictionary."""
        return bool(model.dictionaries)

    def prepare(self, runner: Runner, model: TwoPhaseModel) -> None:
        """Check sizes and groups; see :meth:`TwoPhaseModel.check_keys`.

        Raises:
            ValueError: If the run cannot work.
        """
        loader = runner.train_dataloader
        batch = loader.batch_size * runner.world_size
        accumulation = accumulation_of(runner.optim_wrapper)
        samples = length_hint(loader.dataset)  # 0: unknown
        for warning in model.check_keys(batch * accumulation, samples):
            runner.logger.warning(warning)
        if model.wants_groups:
            runner.logger.info(describe_groups(loader.dataset), extra=ABOUT)

    def act(self, runner: Runner, model: TwoPhaseModel, stepped: bool) -> None:
        """Commit after a real step; forget after a skipped one."""
        due = runner.optim_wrapper.should_update()
        write_dictionaries(model, stepped, due)
