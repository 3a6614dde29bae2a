import contextlib
import functools
import logging
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.synchronize import Event
from types import FrameType
from typing import Any, NoReturn

import torch
from mmengine.device import get_device
from mmengine.dist import all_reduce, barrier, is_main_process
from mmengine.runner import Runner

from mmmoco.engine import preemption
from mmmoco.engine.disk import survive
from mmmoco.engine.endings import ExpectedEnd
from mmmoco.engine.loops import ContrastEpochLoop, ContrastIterLoop
from mmmoco.engine.meeting import tell_all, was_told
from mmmoco.engine.optim import ContrastOptimWrapper
from mmmoco.engine.preemption import MarkerError, Preempted
from mmmoco.engine.run_hook import RunHook
from mmmoco.engine.screen import ABOUT
from mmmoco.private_names import end_workers
from mmmoco.registry import HOOKS

from .checkpoint_hook import ContrastCheckpointHook

#: Seconds for which a data worker outlives a signal that was sent to all
#: processes of the job: the training needs it until its step is done.
GRACE = 60

#: Seconds that a signalled run waits for its data, alone or with others, and
#: for a step that usually takes a fifth of it or less.
ALONE, TOGETHER, STEP = 10.0, 30.0, 45.0

#: Signals that Windows does not have, so that none can come.
NOT_EVERYWHERE = ('SIGUSR1', 'SIGUSR2')

#: Keys under which the processes tell each other that the run ends here.
GIVE_UP, MARKED = 'mmmoco/give_up', 'mmmoco/marked'


@HOOKS.register_module()
class PreemptionHook(RunHook):
    """Stop when the scheduler says so, in a state to go on from exactly.

    After SIGTERM or SIGUSR1 the running iteration is finished, with gradient
    accumulation up to the optimizer step; then the state is saved, the file
    ``PREEMPTED`` is written to the work dir, and every process ends with
    exit code 0. It is enough that one process received the signal. A run
    that goes on removes the file.

    A run that waits for data is not waited for: one process saves the state
    of its last step after 10 seconds; of several, which may be in the middle
    of a step, all end after 30 seconds, and the file names the newest
    checkpoint.

    Args:
        signals: Names of the signals.
    """

    priority = 'LOWEST'  # After the checkpoint hook.

    def __init__(
        self, signals: Sequence[str] = ('SIGTERM', 'SIGUSR1')
    ) -> None:
        there = [name for name in signals if hasattr(signal, name)]
        unknown = [n for n in signals if n not in (*there, *NOT_EVERYWHERE)]
        if unknown:
            raise ValueError(
                f'PreemptionHook(signals={list(signals)}): {unknown[0]!r} is '
                "no signal; they are called 'SIGTERM', 'SIGUSR1', …"
            )
        self.signals = [signal.Signals[name] for name in there]
        self.received: str | None = None
        self._asked_at: float | None = None
        self._before: dict[int, Any] = {}
        self._saver: ContrastCheckpointHook | None = None
        self._over = threading.Event()
        self._released = multiprocessing.Event()
        self._ending = threading.Lock()
        self._step_began: float | None = None
        self._longest_step = 0.0
        self._stopping = False
        self._work_dir = ''

    def before_train(self, runner: Runner) -> None:
        """Listen to the signals; the run goes on, so remove the file."""
        savers = (
            hook
            for hook in runner.hooks
            if isinstance(hook, ContrastCheckpointHook)
        )
        self._saver = next(savers, None)
        if self._saver is None:
            runner.logger.info(
                'PreemptionHook: this run saves nothing (no '
                'ContrastCheckpointHook), so a signal ends it at once.',
                extra=ABOUT,
            )
            return
        if is_main_process():
            self._work_dir = runner.work_dir
            with survive('The marker of a stop is not prepared'):
                preemption.remove(runner.work_dir)
                preemption.reserve_marker(runner.work_dir)
        if threading.current_thread() is not threading.main_thread():
            runner.logger.warning(
                'PreemptionHook: signals reach the main thread only, and the '
                'training runs in another one; it will not react to them.'
            )
            return
        loader = runner.train_dataloader
        if loader.num_workers:
            loader.worker_init_fn = functools.partial(
                _outlive, loader.worker_init_fn, self._released
            )
        if isinstance(runner.optim_wrapper, ContrastOptimWrapper):
            runner.optim_wrapper.wants_stop = lambda: self.received is not None
        for number in self.signals:
            self._before[number] = signal.signal(number, self._note)
        _forks.listeners.append(self)
        self._over.clear()
        self._released.clear()
        threading.Thread(
            target=self._watch, args=(runner,), daemon=True
        ).start()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        self._asked_at = self._asked_at or time.monotonic()

    def before_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Take the time, after what the other hooks do."""
        self._step_began = time.monotonic()

    def step_done(self) -> None:
        """Take the time, before what the other hooks do."""
        if self._step_began is not None:
            seconds = time.monotonic() - self._step_began
            self._longest_step = max(self._longest_step, seconds)
        self._step_began = None

    def after_train_iter(self, runner: Runner, *_: Any, **__: Any) -> None:
        """Stop, if any process received a signal.

        Raises:
            Preempted: Ends the process.
        """
        if self._saver is None or not runner.optim_wrapper.should_update():
            return
        if not self._anyone(runner):
            return
        if not self.is_last_train_iter(runner):
            self._stop(runner)
        runner.logger.warning(
            f'{self._name()} in the last iteration: the run goes to its end.'
        )
        self._saver.save_now(runner, runner.iter + 1)

    def _anyone(self, runner: Runner) -> bool:
        if runner.world_size == 1:
            return self.received is not None
        if isinstance(runner.optim_wrapper, ContrastOptimWrapper):
            # It asked all processes, together with what else they agree on.
            return runner.optim_wrapper.stop_wanted
        asked = torch.tensor(float(self.received is not None))
        asked = asked.to(get_device())
        all_reduce(asked, 'max')
        return bool(asked)

    def after_train(self, runner: Runner) -> None:
        """Listen no longer."""
        self.release()

    def release(self) -> None:
        """Give the signals back to whoever had them."""
        self._over.set()
        if self in _forks.listeners:
            _forks.listeners.remove(self)
        self._released.set()
        while self._before:
            signal.signal(*self._before.popitem())
        if self._work_dir:
            with contextlib.suppress(OSError):
                preemption.remove(self._work_dir, preemption.RESERVE)

    def _stop(self, runner: Runner) -> NoReturn:
        self._stopping = True
        self._ending.acquire()  # Else the watching thread ends the process.
        done = runner.iter + 1
        runner.logger.warning(
            f'{self._name()} at iteration {done}: saving the state, then '
            'ending.'
        )
        self._leave(runner, done, save=True)
        runner.visualizer.close()
        barrier()
        self.release()
        # Workers that persist would be waited for when python ends.
        end_workers(runner.train_dataloader)
        raise Preempted

    def _name(self) -> str:
        return self.received or 'a signal to another process'

    def _leave(self, runner: Runner, done: int, save: bool) -> None:
        """Leave the state, if it is one to go on from, and the marker.

        Raises:
            MarkerError: If that is impossible.
        """
        hook = self._saver
        if hook is None:
            return
        saved = save and hook.save_now(runner, done)
        if not is_main_process():
            return
        newest = hook.last_ckpt or 'no checkpoint'
        try:
            preemption.write_marker(
                runner.work_dir,
                signal=self._name(),
                iteration=done,
                checkpoint=hook.last_ckpt,
            )
        except OSError as error:
            raise MarkerError(
                f'{self._name()} at iteration {done}: the run is stopped, but '
                f'cannot be marked as such in {runner.work_dir} '
                f'({error.strerror or error}); {newest} is where --resume '
                'goes on.'
            ) from error
        lost = '' if saved else ' (what came after it is lost)'
        runner.logger.warning(
            f'Pre-empted; {newest} is where it goes on{lost}, when the same '
            'command is given again.'
        )

    # When no step comes to its end

    def _watch(self, runner: Runner) -> None:
        """See, in a thread, that a signal ends the run in any case."""
        loop = runner.train_loop
        if not isinstance(loop, ContrastEpochLoop | ContrastIterLoop):
            return
        wait, alone = loop.data_wait, runner.world_size == 1
        while not self._over.wait(0.5):
            now = time.monotonic()
            moved = wait.since or self._step_began or now
            if now - moved > 5 and was_told(GIVE_UP):
                self._end(runner, 'another process waits in vain')
            if self._asked_at is None:
                continue
            with wait.held() as since:
                seconds = now - max(self._asked_at, since or now)
                if alone and seconds > ALONE:
                    self._end(runner, 'the data do not come', save=True)
                if seconds > TOGETHER:
                    tell_all(GIVE_UP)
                    self._end(runner, 'the data do not come')
            began = self._step_began
            if since is None and began is not None:
                seconds = now - max(self._asked_at, began)
                if seconds > max(STEP, 5 * self._longest_step):
                    tell_all(GIVE_UP)
                    self._end(runner, 'the step does not come to its end')

    def settle(self, runner: Runner, error: Exception) -> None:
        """Let an error that a stop brought about end the run as stopped.

        Others that end first break what this process shares with them, and a
        signal to the whole job kills workers. What ends a run by its own
        decision is raised again.
        """
        decided = self._stopping or isinstance(error, ExpectedEnd)
        complete = runner.iter >= runner.max_iters
        if self._saver is None or decided or complete:
            return
        if self._asked_at is None and not was_told(GIVE_UP):
            return
        runner.logger.warning(''.join(traceback.format_exception(error)))
        self._end(runner, f'{type(error).__name__} after it')

    def _end(self, runner: Runner, why: str, save: bool = False) -> NoReturn:
        """End the process from here, whatever its main thread is doing."""
        self._ending.acquire()
        done, code = runner.iter, 0
        # Within an accumulation there is no state to go on from.
        save = save and done > 0 and runner.optim_wrapper.should_update()
        first = 'saving the state, then ending' if save else 'ending'
        runner.logger.warning(
            f'{self._name()}, {done} iterations are done, and {why}: {first}.'
        )
        try:
            self._leave(runner, done, save)
            # No process may end before, which breaks the others.
            if is_main_process():
                tell_all(MARKED)
            deadline = time.monotonic() + 15
            while not was_told(MARKED, True) and time.monotonic() < deadline:
                time.sleep(0.2)
            runner.visualizer.close()
        except Exception as error:
            code = 2
            told = isinstance(error, MarkerError)
            runner.logger.error(str(error) if told else traceback.format_exc())
        self._before.clear()  # Only the main thread could give them back.
        for hook in runner.hooks:
            if isinstance(hook, RunHook):
                hook.release()
        logging.shutdown()
        for child in multiprocessing.active_children():
            child.kill()
        os._exit(code)


class _Forks:
    """Lets signals end the processes that are forked while a hook listens.

    Such a process, for instance one of a pool, is not the training. Python
    forgets a signal that reaches it before it has begun: a pool that is ended
    at once would wait for it forever. So signals are held back over the fork.
    """

    def __init__(self) -> None:
        self.listeners: list[PreemptionHook] = []
        self._mask = threading.local()
        if hasattr(os, 'register_at_fork'):
            os.register_at_fork(
                before=self._hold,
                after_in_parent=self._let,
                after_in_child=self._let_end,
            )

    def _hold(self) -> None:
        numbers = {n for hook in self.listeners for n in hook.signals}
        self._mask.before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)

    def _let(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask.before)

    def _let_end(self) -> None:
        while self.listeners:
            for number in self.listeners.pop().signals:
                signal.signal(number, signal.SIG_DFL)
        self._let()


_forks = _Forks()


def _outlive(
    init: Callable[[int], None] | None, released: Event, worker: int
) -> None:
    """Let a data worker survive a signal to the whole job for a while.

    Once the training is over, the same signal is python's that ends it.
    """
    if init is not None:
        init(worker)

    def stay(*_: object) -> None:
        if released.is_set():
            os._exit(0)
        if hasattr(signal, 'alarm'):  # Else the worker ends with its run.
            signal.alarm(GRACE)

    signal.signal(signal.SIGTERM, stay)
    for name in NOT_EVERYWHERE:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
