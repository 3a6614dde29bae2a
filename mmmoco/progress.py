"""How far something is that takes long: a line that says when it ends."""

import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator
from operator import length_hint
from typing import Any, TypeVar

import torch.distributed as torch_dist
from mmengine.logging import MMLogger

_T = TypeVar('_T')

#: Seconds after which there is something to say, and between two changes of a
#: line on a terminal.
PATIENCE, BLINK = 5.0, 0.2
#: Least and largest part of the whole between two lines elsewhere.
_NEAR, _FAR = 0.01, 0.25


def first_process() -> bool:
    """Whether this process speaks for all of a run, or is the only one."""
    if torch_dist.is_available() and torch_dist.is_initialized():
        return torch_dist.get_rank() == 0
    return os.environ.get('RANK', '0') == '0'


def track(
    items: Iterable[_T], what: str, total: int | None = None
) -> Iterator[_T]:
    """Yield items; say how far one is if all take longer than five seconds.

    Args:
        items: Anything to go through.
        what: Is being done, for the line.
        total: Number of items, if they do not tell it.
    """
    with Progress(what, total or length_hint(items) or None) as progress:
        for item in items:
            yield item
            progress.advance()


class Progress:
    """A line with the time that is left: it changes in place on a terminal.

    Elsewhere lines follow each other, after 5, 10, 20 seconds and so on, each
    further on than the last: at most seven, however long it takes. What is
    done within something else then only speaks for that. Nothing is said of
    what ends before, nor by any but the first process.

    Args:
        what: Is being done.
        total: Number of steps; None: unknown.
        done: Steps that were done before.

    Attributes:
        start: From when on the steps are timed.
    """

    #: What all lines of a process stand in, on a terminal.
    _live: Any = None
    #: Within what the next one is done.
    _innermost: 'Progress | None' = None

    def __init__(
        self, what: str, total: int | None = None, done: int = 0
    ) -> None:
        self.what, self.total = what, total
        self.done = self._before = done
        self.start = self._spoken = time.monotonic()
        self._pause, self._due_from = PATIENCE, 0.0
        self._outer, Progress._innermost = Progress._innermost, self
        self._task: Any = None
        self._owner = False
        self._speaks = first_process() and sys.stderr is not None
        self._in_place = self._speaks and sys.stderr.isatty()

    def __enter__(self) -> 'Progress':
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def due(self) -> bool:
        """Whether the next step is worth a word."""
        now = time.monotonic()
        waited = now - self._spoken
        if self._in_place:
            return now - self.start > PATIENCE and waited > BLINK
        if self._outer is not None:
            return self._outer.due()
        further = self._share() >= self._due_from
        return self._speaks and further and waited > self._pause

    def _share(self) -> float:
        return self.done / self.total if self.total else 0.0

    def heard(self, when: float) -> None:
        """Note when others said something: it stands for a line of ours."""
        if when > self._spoken:
            self._spoken = when
            if self._due_from:
                self._wait()

    def _wait(self) -> None:
        if self.total:
            share = self._share()
            self._due_from = share + min(max(2 * share, _NEAR), _FAR)

    def advance(self, steps: int = 1, note: str = '') -> None:
        """Note that steps were done, and speak if it is time.

        Args:
            steps: Done since the last call.
            note: Stands behind the line.
        """
        self.done += steps
        if not self.due():
            return
        self._spoken = time.monotonic()
        if self._in_place:
            self._change(note)
        elif self._outer is not None:
            self._outer.advance(0, self.line(self._spoken, note))
        else:
            self._pause *= 2
            self._wait()
            sys.stderr.write(f'{self.line(self._spoken, note)}\n')
            sys.stderr.flush()

    def line(self, now: float, note: str = '') -> str:
        """Return what is said at a time of the monotonic clock."""
        text = f'{self.what}: {self.done:,}'
        if self.total:
            text += f' of {self.total:,} ({100 * self._share():.0f} %)'
            fresh = self.done - self._before
            if fresh > 0:
                rest = (self.total - self.done) / fresh * (now - self.start)
                text += f', {_clock(max(rest, 0))} left'
        return f'{text}, {note}' if note else text

    def close(self) -> None:
        """Take the line away."""
        if Progress._innermost is self:
            Progress._innermost = self._outer
        if self._task is not None:
            Progress._live.remove_task(self._task)
            Progress._live.refresh()
            self._task = None
        if self._owner:
            Progress._live.stop()
            Progress._live, self._owner = None, False
            _write_to(sys.stdout)

    def _change(self, note: str) -> None:
        """Show the line as it is now; without a thread, which forks fear."""
        if Progress._live is None:
            from rich import progress
            from rich.console import Console

            both = sys.stdout is not None and sys.stdout.isatty()
            Progress._live = progress.Progress(
                progress.TextColumn('{task.description}'),
                progress.BarColumn(bar_width=20),
                progress.MofNCompleteColumn(),
                progress.TimeRemainingColumn(),
                progress.TextColumn('{task.fields[note]}'),
                console=Console(stderr=True),
                auto_refresh=False,
                transient=True,
                redirect_stdout=both,
            )
            self._owner = True
            Progress._live.start()
            if both:
                _write_to(sys.stdout)
        if self._task is None:
            self._task = Progress._live.add_task(
                self.what, total=self.total, completed=self.done, note=note
            )
        Progress._live.update(self._task, completed=self.done, note=note)
        Progress._live.refresh()


def _write_to(stream: Any) -> None:
    """Let what is logged go above the line, and not through it."""
    for handler in MMLogger.get_current_instance().handlers:
        if type(handler) is logging.StreamHandler:
            handler.setStream(stream)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f'{hours}:{minutes:02}:{rest:02}'
