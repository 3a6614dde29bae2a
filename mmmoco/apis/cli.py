"""The command line of a job, made of the job's signature and docstring.

A *job* is a function with plain arguments. Those before the ``*`` are the
positionals of its tool, unless that names others, and the rest its options;
their help stands in the docstring. Nothing heavy is imported here, so that
``--help`` comes at once.
"""

from __future__ import annotations

import argparse
import errno
import inspect
import logging
import os
import re
import shutil
import signal
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    NoReturn,
    TypeVar,
    Union,
    get_args,
    get_origin,
)

from .early_checks import flag_of, not_a_checkpoint, require_places
from .foreign_flags import translated
from .lookup import nearest
from .process import LIMIT, lacks_openmmlab

#: Settings of a config by dotted key, as from ``--cfg-options``.
Settings = Mapping[str, Any]

#: How the processes of a distributed run are started.
Launcher = Literal['none', 'pytorch', 'slurm', 'mpi']


#: What bad input raises while a tool prepares its work (files that are
#: missing, unreadable or damaged are OSErrors).
USER_ERRORS = (OSError, KeyError, ValueError, ImportError)

_PLAIN = inspect.Parameter.POSITIONAL_OR_KEYWORD
_NAMED = inspect.Parameter.KEYWORD_ONLY
_REST = inspect.Parameter.VAR_KEYWORD
_Job = TypeVar('_Job', bound=Callable[..., Any])

_SECTION = re.compile(
    r'^(Args|Returns|Raises|Note|Examples?):\n', re.MULTILINE
)


class UsageError(ValueError, argparse.ArgumentTypeError):
    """Bad input, with a message that says how to mend it."""


def at_least(low: int) -> Callable[[str], int]:
    """Return what reads a number of a command line."""

    def integer(text: str) -> int:
        number = int(text)
        if number < low:
            raise UsageError(f'{number}: must be at least {low}.')
        return number

    return integer


def ending(*known: str) -> Callable[[str], str]:
    """Return what refuses a name that ends otherwise."""

    def checked(path: str) -> str:
        if Path(path).suffix not in known:
            raise UsageError(
                f'{path}: give a name that ends in {" or ".join(known)}.'
            )
        return path

    return checked


def number_or_name(text: str) -> int | str:
    """Return a whole number, if it is one."""
    try:
        return int(text)
    except ValueError:
        return text


#: Beside the type of a parameter that says how many.
COUNT = {'type': at_least(1)}


def with_options_of(other: Callable[..., Any]) -> Callable[[_Job], _Job]:
    """Let a job take the options of another function as its ``**kwargs``.

    Its signature and its docstring then have them, too.
    """
    theirs, helps = inspect.signature(other).parameters, _docstring(other)[1]

    def extended(job: _Job) -> _Job:
        own = inspect.signature(job)
        kept = [p for p in own.parameters.values() if p.kind is not _REST]
        more = [p for p in theirs.values() if p.kind is _NAMED]
        vars(job)['__signature__'] = own.replace(parameters=[*kept, *more])
        head, args, rest = (inspect.getdoc(job) or '').partition('Args:\n')
        mine, gap, rest = rest.partition('\n\n')
        lines = [f'\n    {p.name}: {helps.get(p.name, "")}.' for p in more]
        job.__doc__ = ''.join([head, args, mine, *lines, gap, rest])
        return job

    return extended


def main(
    job: Callable[..., Any],
    argv: Sequence[str] | None = None,
    prog: str | None = None,
    positionals: Sequence[str] | None = None,
) -> None:
    """Run a job as a command line says, and print its result.

    A result is printed if its class says how it is written (``__str__``). One
    with a ``problem`` ends the tool with that text and code 2.

    Args:
        job: Function to run.
        argv: Instead of the arguments of this process.
        prog: Name of the tool in messages; default: its file's.
        positionals: Parameters that are given without a name, in this order;
            all others are options. Default: those before the ``*``.
    """
    prog = prog or os.path.basename(sys.argv[0])
    given, debug = arguments(job, argv, prog, positionals)
    own = inspect.signature(job).parameters.values()
    if positionals is None:
        positionals = [p.name for p in own if p.kind is _PLAIN]
    try:
        require_places(given, positionals)
    except (OSError, ValueError) as error:
        if debug:
            raise
        _end_with(prog, str(error))

    def tool() -> None:
        result = job(**given)
        written = inspect.getattr_static(type(result), '__str__')
        if not _rank() and written is not object.__str__:
            sys.stdout.write(f'{result}\n')
            sys.stdout.flush()
        problem = getattr(result, 'problem', None)
        if problem:
            raise UsageError(problem)

    run(tool, prog, debug)


def arguments(
    job: Callable[..., Any],
    argv: Sequence[str] | None = None,
    prog: str = '',
    positionals: Sequence[str] | None = None,
) -> tuple[dict[str, Any], bool]:
    """Return what a command line gives to a job, and ``--debug``."""
    parser = parser_of(job, prog, positionals)
    given = vars(parser.parse_args(argv))
    debug: bool = given.pop('debug')
    if 'debug' in inspect.signature(job).parameters:
        given['debug'] = debug
    if 'local_rank' in given:
        # Old launchers say it by an option, those of today by this.
        os.environ.setdefault('LOCAL_RANK', str(given.pop('local_rank')))
    return given, debug


def parser_of(
    job: Callable[..., Any],
    prog: str,
    positionals: Sequence[str] | None = None,
) -> Parser:
    """Return the command line that a job's signature and docstring make.

    A positional may be left out if its parameter has a default and stands
    before the ``*``.
    """
    summary, _, example = _docstring(job)
    parser = Parser(
        prog=prog,
        description=summary,
        epilog=f'Example: {example}' if example else None,
    )
    own = inspect.signature(job).parameters
    if positionals is None:
        positionals = [n for n, p in own.items() if p.kind is _PLAIN]
    for name in positionals:
        _add(parser, job, own[name], True)
    for name, parameter in own.items():
        if name not in ('debug', *positionals):
            _add(parser, job, parameter, False)
    if parser.get_default('launcher'):
        parser.add_argument(
            *('--local_rank', '--local-rank'),
            type=int,
            default=0,
            help=argparse.SUPPRESS,
        )
    add_debug(parser)
    return parser


def _add(
    parser: argparse.ArgumentParser,
    job: Callable[..., Any],
    parameter: inspect.Parameter,
    positional: bool,
) -> None:
    """Add what a parameter is on the command line."""
    name, default = parameter.name, parameter.default
    text = _docstring(job)[1].get(name, '')
    hint = parameter.annotation
    if isinstance(hint, str):
        try:
            hint = eval(hint, inspect.unwrap(job).__globals__)
        except NameError:
            hint = str  # What type checkers alone know is given as text.
    settings = _settings_of(hint, default)
    needed = default is parameter.empty
    if not needed:
        settings.setdefault('default', default)
        if not isinstance(default, bool | None) and default not in ((), ''):
            several = isinstance(default, list | tuple)
            shown = ' '.join(map(str, default)) if several else default
            text = f'{text} ({shown})'
    settings['help'] = text.replace('%', '%%')
    if not positional:
        off = 'no_' if settings.get('action') == 'store_false' else ''
        flags = [flag_of(off + name), *settings.pop('short', '').split()]
        parser.add_argument(*flags, dest=name, required=needed, **settings)
    else:
        needed = needed or parameter.kind is _NAMED
        nargs = {} if needed else {'nargs': '?'}
        parser.add_argument(name, **nargs | settings)


def _settings_of(hint: Any, default: Any) -> dict[str, Any]:
    """Return what argparse is told about a type."""
    if get_origin(hint) is Annotated:
        # Says what no type does: the metavar, say.
        plain, told = get_args(hint)
        return _settings_of(plain, default) | told
    kinds = [hint]
    if get_origin(hint) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(hint) if kind is not types.NoneType]
    kind, origin, inner = kinds[0], get_origin(kinds[0]), get_args(kinds[0])
    if kinds == [bool]:
        return dict(action='store_false' if default else 'store_true')
    if bool in kinds:  # Bare, or with a value.
        return dict(nargs='?', const=True)
    if origin is Literal:
        return dict(type=type(inner[0]), choices=inner)
    if origin is None:
        return dict(type=kind, metavar={int: 'N', float: 'X'}.get(kind))
    if issubclass(origin, Mapping):
        return dict(nargs='+', action=CfgOptions, metavar='KEY=VALUE')
    nargs = len(inner) if origin is tuple else '+'
    return _settings_of(inner[0], default) | dict(nargs=nargs)


def _docstring(job: Callable[..., Any]) -> tuple[str, dict[str, str], str]:
    """Return summary, help by parameter and example of Google's style."""
    text = (inspect.getdoc(job) or '').replace('``', '')
    summary, *sections = re.split(_SECTION, text)
    found = dict(zip(sections[::2], sections[1::2], strict=True))
    entries = re.findall(
        r'^ {4}\**(\w+): (.*\n(?: {5,}.*\n|\n(?= {5}))*)',
        found.get('Args', '') + '\n',
        flags=re.MULTILINE,
    )
    helps = {
        name: ' '.join(said.split()).removesuffix('.')
        for name, said in entries
    }
    example = found.get('Example', found.get('Examples', ''))
    return summary.strip(), helps, ' '.join(example.split())


class Parser(argparse.ArgumentParser):
    """One that says in one line what is wrong, and what was meant."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.arguments: list[argparse.Action] = []
        self.flags: list[str] = []
        super().__init__(*args, **kwargs)

    def add_argument(self, *names: Any, **settings: Any) -> argparse.Action:
        """Add an argument, and remember it."""
        action = super().add_argument(*names, **settings)
        self.arguments.append(action)
        self.flags += action.option_strings
        return action

    def parse_args(  # type: ignore[override]
        self, argv: Sequence[str] | None = None, namespace: Any = None
    ) -> argparse.Namespace:
        """Parse; options and positionals may come in any order."""
        words = list(sys.argv[1:] if argv is None else argv)
        if not {'-h', '--help'} & {*words}:
            self._refuse_unknown(words)
        found, rest = self.parse_known_args(words, namespace)
        if rest:  # A positional that may be absent, behind an option.
            found, rest = self.parse_known_intermixed_args(words, namespace)
        if rest:
            if wrong := not_a_checkpoint(vars(found)):
                self.error(wrong)
            told = '; --help lists what there is.'
            key, equals, value = rest[0].partition('=')
            if equals:
                told = f'; {self._meant(f"--{key}", value)}'
                if '--cfg-options' in self.flags and '.' in key:
                    told = '; KEY=VALUE stands behind --cfg-options.'
            self.error(f'unrecognized arguments: {" ".join(rest)}{told}')
        return found

    def error(self, message: str) -> NoReturn:
        """End with a line."""
        _end(f'{self.prog}: error: {message}\n', 2)

    def _refuse_unknown(self, words: Sequence[str]) -> None:
        """Refuse options that do not exist, before values that are missing."""
        for at, word in enumerate(words):
            if word == '--':
                return
            flag, _, value = word.partition('=')
            number = re.fullmatch(r'-[\d.][\d.e+-]*', word)
            if (
                not flag.startswith('-')
                or flag == '-'
                or number
                or ' ' in flag
            ):
                continue
            if flag in self.flags or (
                flag[:2] == '--'
                and any(f.startswith(flag) for f in self.flags)
            ):
                continue
            behind = list(
                takewhile(lambda w: not w.startswith('-'), words[at + 1 :])
            )
            said = ' '.join([word, *behind])
            value = value or ' '.join(behind[:1])
            self.error(
                f'unrecognized arguments: {said}; {self._meant(flag, value)}'
            )

    def _meant(self, flag: str, value: str) -> str:
        judged = {'checkpoint', 'checkpoint_dir'} & {
            argument.dest for argument in self.arguments
        }
        settings = '--cfg-options' in self.flags and not judged
        told = translated(flag, value, self.flags, settings)
        near = nearest(flag.replace('_', '-'), self.flags)
        if told and not (near and near in told):
            return told
        if near:
            return f'did you mean {near}?'
        return '--help lists the options.'


class CfgOptions(argparse.Action):
    """mmengine's ``DictAction``, imported only where it is used.

    By itself that ends with a trace where a ``=`` is missing.
    """

    def __call__(
        self, parser: Any, namespace: Any, values: Any, option: Any = None
    ) -> None:
        """Take the options, if each has its value."""
        for text in values:
            if '=' not in text:
                raise argparse.ArgumentError(
                    self, f'{text!r} is not KEY=VALUE'
                )
        from mmengine.config import DictAction

        theirs = DictAction(self.option_strings, self.dest, nargs='+')
        theirs(parser, namespace, values, option)


def require_file(checkpoint: str) -> None:
    """Raise FileNotFoundError if a checkpoint does not exist."""
    if not Path(checkpoint).is_file():
        raise FileNotFoundError(f'Checkpoint {checkpoint!r} does not exist.')


def add_debug(parser: argparse.ArgumentParser) -> None:
    """Add ``--debug``."""
    parser.add_argument(
        '--debug', action='store_true', help='show the stack trace of an error'
    )


def run(tool: Callable[[], None], name: str, debug: bool) -> None:
    """Run a tool; what the user can mend ends it with one line and code 2.

    Anything else is a fault of ours: its trace goes to the log, to the screen
    and to torchrun.

    Args:
        tool: What to run.
        name: Name of the tool, for the message.
        debug: Let every exception through.
    """
    for variable, value in LIMIT.items():
        os.environ.setdefault(variable, value)

    def explained() -> None:
        try:
            with _told_to_end():
                tool()
        except (KeyboardInterrupt, Exception) as error:
            stop: BaseException | None = error
            # Ctrl-C ends data workers, too, of which torch then complains.
            while isinstance(stop, Exception):
                stop = stop.__context__
            if isinstance(stop, KeyboardInterrupt):
                told = stop.args[:1] == (signal.SIGTERM,)
                said, code = ('ended by SIGTERM', 143) if told else ('', 130)
                _end(f'{name}: {said or "interrupted"}\n', code)
            early = 'torch' not in sys.modules and not debug
            if lacks_openmmlab(error) or (
                early and isinstance(error, OSError | ValueError)
            ):
                _end_with(name, str(error))
            from mmengine.logging import print_log

            text = None if debug else _explain(error)
            print_log(
                traceback.format_exc(),
                logger='current',
                level=logging.DEBUG if text else logging.ERROR,
            )
            if text is None:
                raise
            _end_with(name, text)

    if 'RANK' in os.environ:
        from torch.distributed.elastic.multiprocessing.errors import record

        explained = record(explained)
    explained()


@contextmanager
def _told_to_end() -> Iterator[None]:
    """Let SIGTERM end one process as Ctrl-C does: it is said, and tidied up.

    Of several one may wait for another, and would not hear of it.
    """
    process = os.getpid()

    def end(number: int, _: object) -> None:
        if os.getpid() == process:
            raise KeyboardInterrupt(number)
        signal.signal(number, signal.SIG_DFL)  # A child, which it ends.
        os.kill(os.getpid(), number)

    main = threading.current_thread() is threading.main_thread()
    usual = main and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if not usual or 'RANK' in os.environ:
        yield
        return
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _explain(error: BaseException) -> str | None:
    """Return what the user is told in one line; None for a fault of ours."""
    from mmmoco.datasets.bad_files import UnreadableDataError
    from mmmoco.engine.checkpoint_io import CheckpointError
    from mmmoco.engine.endings import (
        ExpectedEnd,
        accepted_arguments,
        is_foreign,
        was_training,
        where_building,
    )

    expected = (ExpectedEnd, CheckpointError, UnreadableDataError)
    text = str(error) or repr(error)
    if isinstance(error, OSError) and error.filename and error.strerror:
        text = f'{str(error.filename)!r}: {error.strerror}'
    shortage = _shortage(text, error)
    if shortage or isinstance(error, expected):
        return shortage or text
    if was_training(error):
        return None
    if isinstance(error, KeyError) and error.args:
        text = str(error.args[0])  # Else it stands between quotes.
        if ' ' in text or not error.__traceback__:
            return text
        at = traceback.extract_tb(error.__traceback__)[-1]
        where = f'{at.filename}:{at.lineno}'
        return f'there is no {text!r} for {at.line} ({where}).'
    place = where_building(error)
    bare = isinstance(error, ValueError) and place and is_foreign(error)
    if isinstance(error, USER_ERRORS) and not bare:
        return text
    # A TypeError is the user's where a config has an unknown argument.
    if isinstance(error, TypeError) and '__init__()' in text:
        known = accepted_arguments(error)
        return f'{text}. Known: {", ".join(known)}.' if known else text
    if isinstance(error, NotImplementedError) and 'get_layer_depth' in text:
        return (
            'optim_wrapper.constructor: a rate for each layer needs a model '
            'that tells how deep a layer is (get_layer_depth), as classifiers '
            f'of mmpretrain with a ViT do, and this one does not ({text}). '
            'Leave out the constructor, or set rates by '
            'optim_wrapper.paramwise_cfg.custom_keys.'
        )
    if place is not None:
        said = f'{type(error).__name__}: {error}'.rstrip(': ')
        return f'the config does not make a run ({said}; in {place[:-1]}).'
    return None


def _shortage(text: str, error: BaseException) -> str | None:
    """Return what is short, if that is what an error is about."""
    if not isinstance(error, RuntimeError | MemoryError | OSError):
        return None
    place = '/dev/shm'
    room = shutil.disk_usage(place if os.path.isdir(place) else os.sep)
    full = os.strerror(errno.ENOSPC) in text and (
        # What a batch needs names it, a queue of workers no file at all.
        '/torch_' in text
        or (getattr(error, 'filename', '') is None and room.free < 1 << 20)
    )
    if full or 'shared memory' in text:
        return (
            f'{place} is full ({room.free >> 10:,} of {room.total >> 10:,} '
            'kB free); data workers hand over their batches there. Give it '
            'more room (docker run --shm-size=8g), or set '
            'train_dataloader.num_workers=0.'
        )
    import torch

    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or (
        "can't allocate memory" in text or os.strerror(errno.ENOMEM) in text
    ):
        return (
            f'out of memory: {text.splitlines()[0]}. Lower '
            'train_dataloader.batch_size, its num_workers or '
            'model.dictionary.size; mmmoco memory says what a '
            'config needs.'
        )
    return None


def _rank() -> int | None:
    """Return the number of this process; None if it is the only one.

    Under Slurm and MPI the environment says it while a job runs, not after.
    """
    group = sys.modules.get('torch.distributed')
    if group is not None and group.is_available() and group.is_initialized():
        return int(group.get_rank())
    return int(os.environ['RANK']) if 'RANK' in os.environ else None


def _end_with(name: str, text: str) -> NoReturn:
    """End with what the user can mend, in one line."""
    if text.startswith('Caught ') and 'Original Traceback' in text:
        text = text.strip().splitlines()[-1]  # Raised in a data worker.
    _end(
        f'{name}: error: {" ".join(text.split())}\n'
        '(--debug shows where it was raised)\n',
        2,
    )


def _end(text: str, code: int) -> NoReturn:
    """Say something and end, without waiting for other processes."""
    if os.environ.get('LOCAL_RANK', '0') != '0':
        # The first process mostly says the same, and torchrun then ends all.
        time.sleep(3)
    sys.stderr.write(text)
    sys.stderr.flush()
    if _rank() is not None:
        logging.shutdown()
        os._exit(code)
    sys.exit(code)
