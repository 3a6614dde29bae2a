import functools
import os
import signal
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import all_reduce, barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmmoco.engine.preemption import Preempted, remove_marker, write_marker
from mmmoco.registry import HOOKS

from .checkpoint_hook import ContrastCheckpointHook

#: Seconds for which a data worker outlives a signal that was sent to all
#: processes of the job: the training needs it until its step is done.
GRACE = 60


@HOOKS.register_module()
class PreemptionHook(Hook):
    """Stop when the scheduler says so, in a state to go on from exactly.

    After SIGTERM or SIGUSR1 the running iteration is finished, with gradient
    accumulation up to the optimizer step; then the state is saved, the file
    ``PREEMPTED`` is written to the work dir, and every process ends with
    exit code 0. It is enough that one process received the signal. A run
    that goes on removes the file.

    Args:
        signals: Names of the signals.
    """

    priority = 'LOWEST'  # After the checkpoint hook.

    def __init__(
        self, signals: Sequence[str] = ('SIGTERM', 'SIGUSR1')
    ) -> None:
        unknown = [name for name in signals if not hasattr(signal, name)]
        if unknown:
            raise ValueError(
                f'PreemptionHook(signals={list(signals)}): {unknown[0]!r} is '
                "no signal; they are called 'SIGTERM', 'SIGUSR1', …"
            )
        self.signals = [signal.Signals[name] for name in signals]
        self.received: str | None = None
        self._before: dict[int, Any] = {}
        self._saver: ContrastCheckpointHook | None = None

    def before_train(self, runner: Runner) -> None:
        """Listen to the signals; the run goes on, so remove the file."""
        saver = _checkpoint_hook(runner)
        if saver is None:
            runner.logger.info(
                'PreemptionHook: this run saves nothing (no '
                'ContrastCheckpointHook), so a signal ends it at once.'
            )
            return
        self._saver, self._pid = saver, os.getpid()
        if is_main_process():
            remove_marker(runner.work_dir)
        if threading.current_thread() is not threading.main_thread():
            runner.logger.warning(
                'PreemptionHook: signals reach the main thread only, and the '
                'training runs in another one; it will not react to them.'
            )
            return
        loader = runner.train_dataloader
        if loader.num_workers:
            loader.worker_init_fn = functools.partial(
                _outlive, loader.worker_init_fn
            )
        for number in self.signals:
            self._before[number] = signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            # A forked process, such as one of a pool: it is not the training.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.received = signal.Signals(number).name

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: Any = None,
    ) -> None:
        """Stop, if any process received a signal.

        Raises:
            Preempted: Ends the process.
        """
        if self._saver is None or not runner.optim_wrapper.should_update():
            return
        asked = torch.tensor(float(self.received is not None))
        asked = asked.to(get_device())
        all_reduce(asked, 'max')
        if asked:
            self._stop(runner)

    def after_train(self, runner: Runner) -> None:
        """Listen no longer."""
        self.release()

    def release(self) -> None:
        """Give the signals back to whoever had them."""
        while self._before:
            signal.signal(*self._before.popitem())

    def _stop(self, runner: Runner) -> None:
        done = runner.iter + 1
        name = self.received or 'a signal to another process'
        runner.logger.warning(
            f'{name} at iteration {done}: saving the state, then ending.'
        )
        hook = self._saver
        assert hook is not None
        saved = hook.save_now(runner)
        if is_main_process():
            write_marker(
                runner.work_dir,
                signal=name,
                iteration=done,
                checkpoint=hook.last_ckpt,
            )
            lost = '' if saved else ' (what came after it is lost)'
            runner.logger.warning(
                f'Pre-empted; {hook.last_ckpt} is where it goes on{lost}, '
                'when the same command is given again.'
            )
        runner.visualizer.close()
        barrier()
        self.release()
        raise Preempted


def _checkpoint_hook(runner: Runner) -> ContrastCheckpointHook | None:
    for hook in runner.hooks:
        if isinstance(hook, ContrastCheckpointHook):
            return hook
    return None


def _outlive(init: Callable[[int], None] | None, worker: int) -> None:
    """Let a data worker survive a signal to the whole job for a while."""
    if init is not None:
        init(worker)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(GRACE))
    for name in ('SIGUSR1', 'SIGUSR2'):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
