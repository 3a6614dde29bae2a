from typing import Any

from mmengine.dist import broadcast, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import nn

from mmmoco.engine.bare_model import bare_model
from mmmoco.engine.evaluation.eyes import (
    compare,
    eyes_of,
    eyes_of_training,
    preprocessor_of,
)
from mmmoco.engine.evaluation.knn_protocol import KNNProtocol
from mmmoco.engine.norm_statistics import statistics_of
from mmmoco.engine.results import append_result
from mmmoco.registry import HOOKS

NAMES = {'top1': 'top-1', 'top5': 'top-5'}


@HOOKS.register_module()
class KNNHook(Hook):
    """Weighted k-NN accuracy during pre-training.

    The figures go to the log, to ``scalars.json`` and the other backends of
    the visualizer (as ``knn/top1`` and ``knn/top5``, percent), and to
    ``results.jsonl``. With several k, the others' scalars end in ``_k200``.

    The protocol is the config's ``knn = dict(bank=data loader of the
    labelled features, query=data loader of what is classified, k=20,
    temperature=0.07, features='backbone')``, which ``tools/knn.py`` uses too.

    Args:
        interval: Epochs between evaluations (iterations, if the loop is
            iteration-based); the last one is always evaluated.
        initial: Also evaluate before the first iteration.
        **protocol: Replaces entries of the config's ``knn``.
    """

    priority = 'LOW'

    def __init__(
        self, interval: int = 1, initial: bool = False, **protocol: Any
    ) -> None:
        self.interval, self.initial = interval, initial
        self.settings = protocol

    def before_train(self, runner: Runner) -> None:
        """Build the loaders, so that a bad path is found at once.

        Raises:
            ValueError: If the protocol is incomplete or does not fit.
        """
        settings = {**runner.cfg.get('knn', {}), **self.settings}
        self.protocol = KNNProtocol.build(settings, runner.seed)
        given = preprocessor_of(runner.cfg)
        seen = {
            f'knn.{name}': eyes_of(
                given, settings[name]['dataset'].get('pipeline')
            )
            for name in ('bank', 'query')
        }
        lines = compare(eyes_of_training(runner.cfg), seen)
        self.protocol.remarks['eyes'] = lines
        for line in lines:
            runner.logger.warning(line)
        if self.initial and runner.iter == 0:
            self.evaluate(runner, done=0)

    def after_train_epoch(self, runner: Runner) -> None:
        """Evaluate every ``interval`` epochs and after the last."""
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            return
        if self.every_n_epochs(runner, self.interval) or (
            self.is_last_train_epoch(runner)
        ):
            self.evaluate(runner, done=runner.epoch + 1)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """In an iteration-based loop, evaluate every ``interval``."""
        if not isinstance(runner.train_loop, IterBasedTrainLoop):
            return
        if self.every_n_train_iters(runner, self.interval) or (
            self.is_last_train_iter(runner)
        ):
            self.evaluate(runner, done=runner.iter + 1)

    def evaluate(self, runner: Runner, done: int) -> dict[str, float]:
        """Evaluate now and publish the figures.

        Args:
            runner: The runner.
            done: Epochs (or iterations) trained.
        """
        model = bare_model(runner)
        share_statistics(model)
        results = self.protocol.evaluate(model)
        iterations = isinstance(runner.train_loop, IterBasedTrainLoop)
        unit = 'iterations' if iterations else 'epochs'
        for k, metrics in results.items():
            described = self.protocol.describe(k)
            figures = ', '.join(
                f'{NAMES.get(name, name)} {value:.2f} %'
                for name, value in metrics.items()
            )
            runner.logger.info(
                f'k-NN after {done} {unit}: {figures} (k={k}, temperature='
                f'{described["temperature"]:g}, {described["features"]} '
                f'features, {described["bank"]} in the bank, '
                f'{described["queries"]} queries)'
            )
            # The first k is the one that is watched.
            suffix = '' if k == self.protocol.ks[0] else f'_k{k}'
            runner.visualizer.add_scalars(
                {f'knn/{name}{suffix}': x for name, x in metrics.items()},
                step=done,
            )
            append_result(
                runner.work_dir,
                task='knn',
                protocol=described,
                metrics=metrics,
                cfg=runner.cfg,
                epoch=runner.epoch if iterations else done,
                seed=runner.seed,
                remarks=self.protocol.remarks,
            )
        return results[self.protocol.ks[0]]


def share_statistics(model: nn.Module) -> None:
    """Give all processes the BatchNorm statistics of the first.

    They are those that a checkpoint holds: the accuracy is the one of the
    checkpoint, also in a run that was resumed from it. Training does not read
    them.
    """
    if get_world_size() > 1:
        for buffer in statistics_of(model):
            broadcast(buffer)
