from collections import Counter
from operator import length_hint
from typing import Any

from mmengine.dist import broadcast_object_list
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmmoco.engine.bare_model import two_phase_model
from mmmoco.engine.collapse import CollapseError, CollapseWatch, Health
from mmmoco.engine.disk import survive, warn
from mmmoco.engine.endings import save_at_end
from mmmoco.engine.environment import write_environment
from mmmoco.engine.key_probe import KeyProbe, time_in_queue
from mmmoco.engine.queue_rise import QueueRise
from mmmoco.engine.run_lines import chance_of
from mmmoco.engine.screen import ABOUT
from mmmoco.functional import effective_rank, feature_spread
from mmmoco.private_names import accumulation_of
from mmmoco.registry import HOOKS

#: Rows of the feature sample, and iterations that a rate is averaged over.
SAMPLE, WINDOW = 256, 50


@HOOKS.register_module()
class MonitorHook(Hook):
    """Watch whether a pre-training run is healthy, and say when it is not.

    Logs beside the loss and the similarities that come with it:

    ``images_per_s``, ``data_wait``
        Throughput of all processes, and the share of the time that the
        training waits for images.
    ``grad_norm``
        L2 norm of the gradient at every optimizer step, before clipping.
    ``feature_std``, ``feature_rank``
        Standard deviation of the normalised queries times √C (1: spread
        evenly, 0: all the same), and their effective rank.
    ``queue_age``, ``old_key_sim``
        Optimizer steps since the oldest keys were made, and their similarity
        to what the key encoder gives for the same images now.
    ``chance``
        The loss of a model that tells nothing, log(K + 1) for K negatives,
        where the method has such a figure.
    ``alarms``
        Checks so far that found a collapse or a value that is not finite.

    All are those of the first process's share of the batch. What costs time
    is done every ``interval`` iterations. Nothing here draws random numbers
    or changes what is trained.

    Args:
        interval: Iterations between two checks.
        probe_images: Images that the age of the keys is measured with.
        stop_on_collapse: Stop, with a checkpoint, at the first alarm.
        repeat: Checks between two warnings of the same kind.
        **limits: Replaces limits of
            :class:`mmmoco.engine.collapse.CollapseWatch`.

    Raises:
        ValueError: If ``interval`` or ``repeat`` is not positive.
    """

    priority = 'NORMAL'

    def __init__(
        self,
        interval: int = 50,
        probe_images: int = 16,
        stop_on_collapse: bool = False,
        repeat: int = 20,
        **limits: Any,
    ) -> None:
        if min(interval, repeat) < 1:
            raise ValueError(
                f'MonitorHook(interval={interval}, repeat={repeat}): both '
                'must be at least 1.'
            )
        self.interval, self.repeat = interval, repeat
        self.probe_images = probe_images
        self.stop_on_collapse = stop_on_collapse
        self.watch = CollapseWatch(**limits)
        self.alarms = 0
        self._seen: Counter[str] = Counter()
        self._steps = self._skipped = 0
        self._due = False
        self._probe: KeyProbe | None = None
        self._rise: QueueRise | None = None
        self._chance: float | None = None

    def before_train(self, runner: Runner) -> None:
        """Write down the environment; see what there is to watch."""
        with survive('environment.json is not written'):
            images = length_hint(runner.train_dataloader.dataset)
            write_environment(runner.log_dir, images)
        model = two_phase_model(runner)
        if model is not None and KeyProbe.fits(model):
            self._probe = KeyProbe(model, self.probe_images)
        wrapper = runner.optim_wrapper
        self._steps = runner.iter // accumulation_of(wrapper)
        self._chance = chance_of(runner)
        batch = runner.train_dataloader.batch_size
        if self._probe is not None and batch and self._chance:
            images = batch * runner.world_size * accumulation_of(wrapper)
            full = time_in_queue(self._probe.model, images)
            self._rise = QueueRise(full * accumulation_of(wrapper))
        self._skipped = getattr(wrapper, 'skipped', 0)
        # A resumed run goes on counting.
        alarms = runner.message_hub.log_scalars.get('train/alarms')
        self.alarms = int(alarms.current()) if alarms else 0

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any, outputs: Any
    ) -> None:
        """Put the scalars where the log processor finds them."""
        wrapper = runner.optim_wrapper
        self._steps += bool(getattr(wrapper, 'stepped', True))
        self._log_speed(runner, data_batch)
        if self._chance is not None:
            runner.message_hub.update_scalar('train/chance', self._chance)
        if self._rise is not None and 'loss' in (outputs or {}):
            note = self._rise.see(runner.iter + 1, outputs['loss'].detach())
            if note:
                runner.logger.info(
                    f'{note} Chance is {self._chance:.2f}.', extra=ABOUT
                )
        norm = getattr(wrapper, 'grad_norm', None)
        if norm is not None and wrapper.should_update():
            runner.message_hub.update_scalar('train/grad_norm', norm)
        self._due |= self.every_n_train_iters(runner, self.interval)
        # Within an accumulation there is no state to stop with.
        due = self._due and wrapper.should_update()
        if self._probe is not None:
            self._log_queue(runner, self._probe, data_batch, due)
        if due:
            self._due = False
            self._check(runner, outputs)

    def _log_speed(self, runner: Runner, data: Any) -> None:
        hub = runner.message_hub
        if 'train/time' not in hub.log_scalars:
            return
        seconds = max(hub.get_scalar('train/time').mean(WINDOW), 1e-9)
        waited = hub.get_scalar('train/data_time').mean(WINDOW)
        batch = len(data['ids']) if data else 0
        rate = batch * runner.world_size / seconds
        hub.update_scalar('train/images_per_s', round(rate, 1))
        hub.update_scalar('train/data_wait', round(waited / seconds, 4))

    def _log_queue(
        self, runner: Runner, probe: KeyProbe, data: Any, due: bool
    ) -> None:
        hub, wrapper = runner.message_hub, runner.optim_wrapper
        if not (due or probe.due(self._steps)):
            return
        with wrapper.optim_context(runner.model):
            similarity = probe.similarity(self._steps)
            if similarity is not None:
                hub.update_scalar('train/old_key_sim', similarity)
            if not due:
                return
            batch = len(data['ids']) * runner.world_size
            age = time_in_queue(probe.model, batch * accumulation_of(wrapper))
            hub.update_scalar('train/queue_age', min(age, self._steps))
            if not probe.waiting:
                probe.keep(data, self._steps, age)

    def _check(self, runner: Runner, outputs: Any) -> None:
        hub, wrapper = runner.message_hub, runner.optim_wrapper
        model = two_phase_model(runner)
        if model is None or model.queries is None:
            return
        features = model.queries[:SAMPLE]
        skipped = getattr(wrapper, 'skipped', 0)
        health = Health(
            loss=float(outputs['loss'].detach()),
            spread=feature_spread(features),
            rank=effective_rank(features),
            full_rank=min(features.shape),
            skipped=skipped - self._skipped,
        )
        self._skipped = skipped
        hub.update_scalar('train/feature_std', health.spread)
        hub.update_scalar('train/feature_rank', health.rank)
        problem = self.watch.judge(health, runner.iter + 1)
        if self.stop_on_collapse:
            # All processes stop, or none.
            decision = [problem]
            broadcast_object_list(decision)
            (problem,) = decision
        self.alarms += problem is not None
        hub.update_scalar('train/alarms', self.alarms)
        if float(outputs.get('no_negatives', 0)):
            self._say(
                runner,
                f'no negatives: of {float(outputs["no_negatives"]):.1%} of '
                'the queries every key is excluded, so they learn nothing '
                '(their loss is 0). Use finer groups, a larger '
                'dictionary.size or batch.',
            )
        if problem:
            self._alarm(runner, problem)

    def _say(self, runner: Runner, problem: str) -> None:
        kind = problem.split(':')[0]
        if self._seen[kind] % self.repeat == 0:
            warn(f'Iteration {runner.iter + 1}: {problem}')
        self._seen[kind] += 1

    def _alarm(self, runner: Runner, problem: str) -> None:
        self._say(runner, problem)
        if not self.stop_on_collapse:
            return
        name = f'iter_{runner.iter + 1}_collapsed.pth'
        raise CollapseError(
            f'Stopped at iteration {runner.iter + 1}, as stop_on_collapse '
            f'asks for; the state {save_at_end(runner, name)}. {problem}'
        )
