from collections.abc import Mapping
from typing import Any

from mmengine.dist import broadcast, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import nn

from mmmoco.engine.bare_model import bare_model
from mmmoco.engine.evaluation import build_evaluation
from mmmoco.engine.evaluation.preprocessing import (
    compare_evaluation,
    preprocessing_of_training,
)
from mmmoco.engine.norm_statistics import statistics_of
from mmmoco.engine.results import figures_text
from mmmoco.engine.screen import ABOUT
from mmmoco.evaluation.classification import Metrics
from mmmoco.registry import HOOKS


@HOOKS.register_module()
class EvaluationHook(Hook):
    """An evaluation of frozen features, again and again while training.

    The figures go to the log, to ``scalars.json`` and the other backends of
    the visualizer (as ``knn/top1``, percent), and to ``results.jsonl``. Where
    one evaluation has the figures of several settings, the first is watched
    and the others' scalars say theirs (``_k200``).

    Args:
        evaluation: Its type (``'KNN'``, ``'LinearProbe'``, ``'SVM'``, or one
            of your own), or a dict with the type and arguments.
        interval: Epochs between evaluations (iterations, if the loop is
            iteration-based); the last one is always evaluated.
        initial: Also evaluate before the first iteration.
        **data: Replaces entries of the config's ``knn = dict(bank=data
            loader of the labelled features, query=data loader of what is
            classified, features='backbone', …)``, which the tools use too.
    """

    priority = 'LOW'

    def __init__(
        self,
        evaluation: str | Mapping[str, Any],
        interval: int = 1,
        initial: bool = False,
        **data: Any,
    ) -> None:
        self.config, self.settings = evaluation, data
        self.interval, self.initial = interval, initial

    def before_train(self, runner: Runner) -> None:
        """Build the loaders, so that a bad path is found at once.

        Raises:
            ValueError: If the settings are incomplete or do not fit.
        """
        self.evaluation, self.data = build_evaluation(
            self.config,
            {**runner.cfg.get('knn', {}), **self.settings},
            runner.seed,
        )
        self.data.remarks['eyes'] = compare_evaluation(
            runner.cfg,
            preprocessing_of_training(runner.cfg),
            self.data.pipelines,
        )
        known = runner.message_hub.runtime_info
        if runner.iter and self._remembered in known:
            self.evaluation.recall(known[self._remembered])
        if self.initial and runner.iter == 0:
            self.evaluate(runner, done=0)

    @property
    def _remembered(self) -> str:
        """Where a checkpoint holds what the evaluation has to know."""
        return f'evaluation_{self.evaluation.task}'

    def after_train_epoch(self, runner: Runner) -> None:
        """Evaluate every ``interval`` epochs and after the last."""
        if by_iterations(runner):
            return
        if self.every_n_epochs(runner, self.interval) or (
            self.is_last_train_epoch(runner)
        ):
            self.evaluate(runner, done=runner.epoch + 1)

    def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """In an iteration-based loop, evaluate every ``interval``."""
        if not by_iterations(runner):
            return
        if self.every_n_train_iters(runner, self.interval) or (
            self.is_last_train_iter(runner)
        ):
            self.evaluate(runner, done=runner.iter + 1)

    def evaluate(self, runner: Runner, done: int) -> Metrics:
        """Evaluate now and publish the figures.

        Args:
            runner: The runner.
            done: Epochs (or iterations) trained.
        """
        model = bare_model(runner)
        share_statistics(model)
        results = self.evaluation.measure(model, self.data)
        if remembered := self.evaluation.remembered():
            runner.message_hub.update_info(self._remembered, remembered)
        iterations = by_iterations(runner)
        unit = 'iterations' if iterations else 'epochs'
        protocol = self.evaluation.describe(self.data)
        watched = results[0].setting
        for found in results:
            told = [f'{name}={x:g}' for name, x in found.setting.items()]
            told += [
                f'{protocol["features"]} features',
                f'{protocol["bank"]} in the bank',
                f'{protocol["queries"]} queries',
            ]
            runner.logger.info(
                f'{self.evaluation.title} after {done} {unit}: '
                f'{figures_text(found.metrics)} ({", ".join(told)})',
                extra=ABOUT,
            )
            suffix = ''.join(
                f'_{name}{x:g}'
                for name, x in found.setting.items()
                if x != watched[name]
            )
            place = self.evaluation.task
            runner.visualizer.add_scalars(
                {f'{place}/{n}{suffix}': x for n, x in found.metrics.items()},
                step=done,
            )
            self.evaluation.record(
                found,
                self.data,
                runner.work_dir,
                runner.cfg,
                epoch=runner.epoch if iterations else done,
                iteration=done if iterations or not done else None,
                seed=runner.seed,
            )
        return results[0].metrics


@HOOKS.register_module()
class KNNHook(EvaluationHook):
    """Weighted k-NN accuracy during pre-training.

    Args:
        interval: As for :class:`EvaluationHook`.
        initial: As for :class:`EvaluationHook`.
        **protocol: Replaces entries of the config's ``knn``: the data, ``k``,
            ``temperature`` and what else k-NN has.
    """

    def __init__(
        self, interval: int = 1, initial: bool = False, **protocol: Any
    ) -> None:
        super().__init__('KNN', interval, initial, **protocol)


def by_iterations(runner: Runner) -> bool:
    """Whether a run, and so an evaluation's interval, counts iterations."""
    return isinstance(runner.train_loop, IterBasedTrainLoop)


def share_statistics(model: nn.Module) -> None:
    """Give all processes the BatchNorm statistics of the first.

    They are those that a checkpoint holds: the accuracy is the one of the
    checkpoint, also in a run that was resumed from it. Training does not read
    them.
    """
    if get_world_size() > 1:
        for buffer in statistics_of(model):
            broadcast(buffer)
