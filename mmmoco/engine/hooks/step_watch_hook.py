from collections.abc import Callable, Iterable
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from mmmoco.engine.bare_model import bare_model
from mmmoco.two_phase import TwoPhaseModel


class StepWatchHook(Hook):
    """Watch one training iteration, and tell what changed when.

    Registered by the pre-flight check, not by configs. Stands first among
    the hooks, so that its ``after_train_iter`` sees what the step alone did.

    Attributes:
        loss: Of the iteration.
        without_gradient: Trainable parameters that got none.
        trained: Parameters that require a gradient.
        stepped: Whether the optimizer stepped.
        early: What of key encoder, teacher and dictionary had changed before
            their hooks acted.
        updates: Calls of ``update_key_encoder``.
        key_moved: Whether the key encoder changed after all.
        teacher_moved: Whether the teacher changed after all.
        entries: Changed entries of the dictionary.
    """

    priority = 'HIGHEST'

    def __init__(self) -> None:
        self.loss = float('nan')
        self.without_gradient: list[str] = []
        self.trained: list[str] = []
        self.stepped = False
        self.early: list[str] = []
        self.updates = 0
        self.key_moved = self.teacher_moved = False
        self.entries = 0
        self._before: dict[str, list[Tensor]] = {}

    def before_train(self, runner: Runner) -> None:
        """Remember the state; note the gradients when the optimizer steps."""
        model = bare_model(runner)
        self._before = {
            name: [tensor.clone() for tensor in tensors]
            for name, tensors in _watched(model).items()
        }
        runner.optim_wrapper.optimizer.register_step_pre_hook(
            lambda *_: self._look_at_gradients(model)
        )
        if self._before.get('key encoder'):
            model.update_key_encoder = self._counted(model.update_key_encoder)
            # The only step is also the last one, where a schedule has m = 1.
            first = model.momentum_at(0.0)
            model.momentum_at = lambda progress: first

    def _counted(self, update: Callable[..., None]) -> Callable[..., None]:
        def counted(*args: Any, **kwargs: Any) -> None:
            self.updates += 1
            update(*args, **kwargs)

        return counted

    def _look_at_gradients(self, model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                self.trained.append(name)
                if parameter.grad is None:
                    self.without_gradient.append(name)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any, outputs: Any
    ) -> None:
        """See what the step alone changed."""
        self.loss = float(outputs['loss'].detach())
        self.stepped = bool(getattr(runner.optim_wrapper, 'stepped', True))
        for name, tensors in _watched(bare_model(runner)).items():
            if _changed(self._before[name], tensors):
                self.early.append(name)

    def after_train(self, runner: Runner) -> None:
        """See what the hooks changed."""
        now = _watched(bare_model(runner))
        key, teacher = 'key encoder', 'teacher'
        self.key_moved = _changed(self._before[key], now[key])
        self.teacher_moved = _changed(self._before[teacher], now[teacher])
        for old, new in zip(
            self._before['dictionary'], now['dictionary'], strict=True
        ):
            if new.dim() == 2:
                differs = old != new
                # Entries are rows or columns; the others all differ.
                lines = [int(differs.any(dim).sum()) for dim in (0, 1)]
                self.entries = max(self.entries, min(lines))


def _watched(model: TwoPhaseModel) -> dict[str, list[Tensor]]:
    """The tensors that only hooks may write, or nobody."""
    none = nn.Identity()
    key_encoder = model.key_encoder or none
    teacher = model.frozen_teacher or none
    return {
        # BatchNorm statistics of the key encoder move in its forward.
        'key encoder': list(key_encoder.parameters()),
        'teacher': [*teacher.parameters(), *teacher.buffers()],
        'dictionary': [b for d in model.dictionaries for b in d.buffers()],
    }


def _changed(old: Iterable[Tensor], new: Iterable[Tensor]) -> bool:
    return not all(torch.equal(a, b) for a, b in zip(old, new, strict=True))
