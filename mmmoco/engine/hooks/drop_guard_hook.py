import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.runner import Runner

from mmmoco.engine.disk import survive
from mmmoco.engine.endings import ExpectedEnd
from mmmoco.evaluation.classification import Metrics
from mmmoco.messages import log_warning
from mmmoco.registry import HOOKS

from .evaluation_hook import EvaluationHook, by_iterations


class FellBelowStart(ExpectedEnd):
    """The training was stopped: the network had become worse than before."""


@dataclass
class _Figures:
    """What is known of a run.

    Attributes:
        start: Figure of the network that it began with.
        best: Of the one that is kept.
        iteration: Of that one.
    """

    start: float
    best: float = -math.inf
    iteration: int = -1


@HOOKS.register_module()
class DropGuardHook(EvaluationHook):
    """Stop a run that loses what its network knew, and keep the best one.

    The start is evaluated before the first iteration, and counts, too. The
    best network, weights alone, is ``best_TASK_iter_N.pth`` in the work dir;
    of an evaluation that ranks no networks (``NeighbourAgreement``), the
    newest within the margin.

    Args:
        evaluation: As for :class:`EvaluationHook`; its first figure counts.
        interval: As for :class:`EvaluationHook`.
        margin: By how many percentage points the figure may lie below that of
            the start; None: never stop.
        **data: As for :class:`EvaluationHook`; a data set without a type is
            that of the training, with what is said here.

    Raises:
        ValueError: If the margin is negative.
    """

    def __init__(
        self,
        evaluation: str | Mapping[str, Any] = 'KNN',
        interval: int = 1,
        margin: float | None = 5.0,
        **data: Any,
    ) -> None:
        super().__init__(evaluation, interval, initial=True, **data)
        if margin is not None and not margin >= 0:
            raise ValueError(f'DropGuardHook(margin={margin}): at least 0.')
        self.margin = margin
        self._figures: _Figures | None = None

    def before_train(self, runner: Runner) -> None:
        """Measure the start; a run that goes on knows it."""
        self._figures = None
        for name in {'bank', 'query'} & {*self.settings}:
            loader = self.settings[name]
            if 'type' not in loader['dataset']:
                own = {**runner.cfg.train_dataloader['dataset']}
                loader = {**loader, 'dataset': own | loader['dataset']}
                self.settings[name] = loader
        super().before_train(runner)
        if not runner.iter:
            return
        known = runner.message_hub.runtime_info
        found = self._figures = _told(known.get(self._known))
        if found is None:
            log_warning(
                'DropGuardHook: the checkpoint does not tell how good the '
                f'start was. That of iteration {runner.iter} counts as it.'
            )
            done = runner.iter if by_iterations(runner) else runner.epoch
            self.evaluate(runner, done)
        elif not self._file(runner, found).is_file():
            log_warning(
                f'{self._file(runner, found)}, the best network so far, is '
                'gone: the next one takes its place.'
            )
            found.best = -math.inf

    def evaluate(self, runner: Runner, done: int) -> Metrics:
        """Evaluate; keep the network if it is the best, or stop.

        Raises:
            FellBelowStart: If it is worse than the start by too much.
        """
        metrics = super().evaluate(runner, done)
        first = [next(iter(metrics.values()))]
        broadcast_object_list(first)  # All processes stop, or none.
        (figure,) = first
        iteration = done if by_iterations(runner) else runner.iter
        found = self._figures = self._figures or _Figures(start=figure)
        if math.isnan(found.start):
            raise FellBelowStart(
                f'Stopped at iteration {iteration}: {self.evaluation.title} '
                'of the start is no number: its weights or images are broken.'
            )
        margin = self.margin
        if margin is not None and not found.start - figure <= margin:
            raise FellBelowStart(
                f'Stopped at iteration {iteration}: {self.evaluation.title} '
                f'is {figure:.2f} %, {found.start - figure:.2f} below the '
                f'start ({found.start:.2f} %), and {margin:g} are allowed. '
                f'{self._said(runner, found)} Lower lr; or allow more by '
                '--allow-drop, DropGuardHook.margin in a config.'
            )
        if figure > found.best or not self.evaluation.ranks:
            found.best, found.iteration = figure, iteration
            self._keep(runner, found)
        runner.message_hub.update_info(self._known, asdict(found))
        return metrics

    @property
    def _known(self) -> str:
        """Where a checkpoint holds the figures."""
        return f'drop_guard_{self.evaluation.task}'

    def after_train(self, runner: Runner) -> None:
        """Say which network is the best."""
        if self._figures is not None:
            runner.logger.info(self._said(runner, self._figures))

    def _file(self, runner: Runner, found: _Figures) -> Path:
        name = f'best_{self.evaluation.task}_iter_{found.iteration}.pth'
        return Path(runner.work_dir, name)

    def _keep(self, runner: Runner, found: _Figures) -> None:
        """Save the network, then remove the one before."""
        file = self._file(runner, found)
        with survive('The best network is not saved'):
            runner.save_checkpoint(
                runner.work_dir,
                file.name,
                save_optimizer=False,
                save_param_scheduler=False,
                by_epoch=False,
                meta=dict(epoch=runner.epoch, iter=found.iteration),
            )
            if not is_main_process():
                return
            pattern = rf'best_{self.evaluation.task}_iter_\d{{1,18}}\.pth'
            for other in file.parent.glob('best_*.pth'):
                if other != file and re.fullmatch(pattern, other.name):
                    other.unlink()

    def _said(self, runner: Runner, found: _Figures) -> str:
        title, file = self.evaluation.title, self._file(runner, found)
        if not self.evaluation.ranks:
            return (
                f'{title}: {found.best:.2f} % at iteration '
                f'{found.iteration}, whose network is {file}.'
            )
        if found.best <= found.start:
            return f'{title}: nothing was better than the start, {file}.'
        return (
            f'{title}: best at iteration {found.iteration}, '
            f'{found.best:.2f} % (start {found.start:.2f} %): {file}.'
        )


def _told(known: Any) -> _Figures | None:
    """Return what a checkpoint tells; it is not trusted."""
    try:
        start, best = float(known['start']), float(known['best'])
        return _Figures(start, best, max(-1, int(known['iteration'])))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
