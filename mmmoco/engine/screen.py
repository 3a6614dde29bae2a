"""What of a run's log is shown: few lines before it trains, all warnings."""

import inspect
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar

from mmengine.logging import MMLogger

#: Marks a record that belongs among the lines about a run:
#: ``logger.info(text, extra=ABOUT)``.
ABOUT = {'about_the_run': True}
#: The same of one that repeats what the config sets.
SETTING = {**ABOUT, 'of_the_config': True}

#: What they say about their own old names is nobody's else to mend.
_LIBRARIES = ('mmengine', 'mmcv', 'mmpretrain', 'mmdet', 'mmseg')


class Screen(logging.Filter):
    """Decides what of a log is shown; the file has all.

    Before a run starts: warnings and errors. Then the lines about the run,
    and from there on everything, the name of the experiment aside; within
    :func:`settings_told` only what is new, and what is marked by ``ABOUT``.
    A warning of another screen of the same job is not repeated.

    Attributes:
        spoken: When something was last shown.
    """

    def __init__(self) -> None:
        super().__init__()
        self.started = False
        self.spoken = time.monotonic()
        self._brief, self._before = _settings_told.get(), frozenset(_warned)
        self._about: list[logging.LogRecord] = []

    @classmethod
    def of(cls, logger: logging.Logger) -> 'Screen':
        """Return what filters a logger's screen; with DEBUG it shows all."""
        screen = cls()
        for handler in _screens(logger):
            if handler.level > logging.DEBUG:
                handler.addFilter(screen)
        return screen

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is shown."""
        about = hasattr(record, 'about_the_run')
        if record.levelno >= logging.WARNING:
            shown = _is_news(record, self._before)
        elif self._brief and (not about or hasattr(record, 'of_the_config')):
            shown = False
        elif not self.started:
            # The second is how mmengine says where a resumed run goes on.
            if about or str(record.msg).startswith('resumed epoch'):
                self._about.append(record)
            shown = False
        else:
            shown = not str(record.msg).startswith('Exp name: ')
        if shown:
            self.spoken = time.monotonic()
        return shown

    def start(
        self,
        logger: logging.Logger,
        first: Iterable[str] = (),
        last: Iterable[str] = (),
        settings: Iterable[str] = (),
    ) -> None:
        """Show the lines about the run, and from now on everything.

        Args:
            logger: Of the run.
            first: Lines before those that the run logged about itself.
            last: Lines after them.
            settings: Lines before all, which repeat what the config sets.
        """
        if self.started:
            return
        self.started = True
        for line in settings:
            logger.info(line, extra=SETTING)
        for line in first:
            logger.info(line, extra=ABOUT)
        for record in self._about:
            record.created = time.time()
            for handler in _screens(logger):
                handler.handle(record)
        self._about.clear()
        for line in last:
            logger.info(line, extra=ABOUT)


#: What this job has said before a run had a log of its own.
_said: list[logging.LogRecord] = []
#: What it has warned of.
_warned: set[str] = set()
_settings_told = ContextVar('settings_told', default=False)


@contextmanager
def settings_told() -> Iterator[None]:
    """Let what runs inside say nothing of what its config sets."""
    token = _settings_told.set(True)
    try:
        yield
    finally:
        _settings_told.reset(token)


@contextmanager
def noise_kept_off() -> Iterator[None]:
    """Keep from the screen what libraries say about themselves.

    All of it is kept for the file: see :func:`hand_on`.
    """

    def heard(record: logging.LogRecord) -> bool:
        _said.append(record)
        return _is_news(record, warned)

    before, warned = len(_said), frozenset(_warned)
    try:
        with _filtered(heard):
            yield
    finally:
        del _said[before:]
        if not warned:
            _warned.clear()


def early_notes() -> AbstractContextManager[None]:
    """Show only warnings of what is said while a run is built."""
    return _filtered(lambda record: record.levelno >= logging.WARNING)


@contextmanager
def _filtered(heard: Callable[[logging.LogRecord], bool]) -> Iterator[None]:
    handlers = _screens(MMLogger.get_current_instance())
    for handler in handlers:
        handler.addFilter(heard)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(heard)


def hand_on() -> None:
    """Write what the job said before into the file of the run's log."""
    for handler in MMLogger.get_current_instance().handlers:
        if isinstance(handler, logging.FileHandler):
            for record in dict.fromkeys(_said):
                handler.handle(record)
    _said.clear()


def _screens(logger: logging.Logger) -> list[logging.Handler]:
    return [h for h in logger.handlers if type(h) is logging.StreamHandler]


def _is_news(record: logging.LogRecord, warned: Set[str]) -> bool:
    """Whether nobody has warned of it, and it is no noise."""
    if _is_noise(record):
        return False
    if record.levelno == logging.WARNING:
        _warned.add(record.getMessage())
    return record.levelno > logging.WARNING or (
        record.getMessage() not in warned
    )


def _is_noise(record: logging.LogRecord) -> bool:
    """Whether a library speaks of old names, or while it is imported.

    Then it says what it lacks, which a run may not need; where it is needed,
    that is an error.
    """
    old = 'deprecat' in str(record.msg).lower()
    frame = inspect.currentframe()
    silent = ('logging', 'mmengine.logging', __name__)
    while frame is not None:
        name = frame.f_globals.get('__name__', '')
        if not name.startswith(silent):
            imported = frame.f_code.co_name == '<module>'
            theirs = name.partition('.')[0] in _LIBRARIES
            return theirs and (old or imported)
        frame = frame.f_back
    return False
