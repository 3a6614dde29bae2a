"""How a training ends before its time: as decided, or by a fault."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from mmengine.registry import build_from_cfg
from mmengine.runner import Runner
from torch import nn

from mmmoco.messages import clipped, shortened
from mmmoco.older_versions import add_note
from mmmoco.two_phase import TwoPhaseModel

from .signatures import arguments_of

_NOTE = 'In the training, at iteration'
_BUILDING = 'While the run was built, in'


class ExpectedEnd(RuntimeError):  # noqa: N818
    """The training was stopped for a reason that the message says whole."""


@contextmanager
def building() -> Iterator[None]:
    """Note on whatever goes wrong that no iteration was begun.

    Until then it is the config that does not fit together.
    """
    try:
        yield
    except Exception as error:
        if not was_training(error):
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = '/'.join(Path(frame.filename).parts[-3:])
            place = f'{place}, line {frame.lineno}'
            part = _part(error)
            found = f'{part}; {place}' if part else place
            add_note(error, f'{_BUILDING} {found}.')
        raise


def is_foreign(error: BaseException) -> bool:
    """Whether code of another library raised an error."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    name = frames[-1].f_globals.get('__name__', '') if frames else ''
    return not name.startswith(('mmmoco', '__main__'))


def accepted_arguments(error: BaseException) -> list[str]:
    """Return what the part of a config takes whose building went wrong."""
    cls: Any = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code is build_from_cfg.__code__:
            cls = frame.f_locals.get('obj_cls', cls)
    return list(arguments_of(cls).hints) if cls else []


def _part(error: BaseException) -> str:
    """Return the part of a config, or of the model, that raised an error."""
    names: dict[nn.Module, str] = {}
    part = key = ''
    for frame, _ in traceback.walk_tb(error.__traceback__):
        found = frame.f_locals.get('self')
        if frame.f_code is build_from_cfg.__code__:
            cfg = frame.f_locals.get('cfg')
            part = shortened(dict(cfg)) if isinstance(cfg, dict) else part
        elif isinstance(found, nn.Module) and '_modules' in vars(found):
            if not names:
                names = {x: n for n, x in found.named_modules(prefix='model')}
                ours = [x for x in names if isinstance(x, TwoPhaseModel)]
                key = f'.{ours[0].key_encoder_name}.' if ours else '..'
            if found in names and 'forward' in frame.f_code.co_name:
                # The key encoder is built from the same parts.
                name = names[found].replace(key, '.')
                part = _module(name, found, frame) or part
    return part


def _module(name: str, module: nn.Module, frame: FrameType) -> str:
    """Describe a module, and what it was given."""
    given = [
        value
        for key, value in frame.f_locals.items()
        if key != 'self' and key in frame.f_code.co_varnames[1:2]
    ]
    kind = type(module).__name__
    if not any(True for _ in module.children()):
        kind = f'{kind}({module.extra_repr()})'
    shapes = f', given {_shapes(given[0])}' if given else ''
    return clipped(f'{name}, a {kind}{shapes}', 200)


def _shapes(value: Any) -> str:
    """Describe tensors by their shapes."""
    if isinstance(value, torch.Tensor):
        return '×'.join(map(str, value.shape)) or 'a number'
    if isinstance(value, list | tuple):
        return f'({", ".join(map(_shapes, value))})'
    return type(value).__name__


def where_building(error: BaseException) -> str | None:
    """Return where building a run failed, None if it was not that."""
    note = _noted(error, _BUILDING)
    return note and note.removeprefix(_BUILDING).strip()


def _noted(error: BaseException, start: str) -> str | None:
    """Return the first note on an error that begins so."""
    notes = getattr(error, '__notes__', [])
    return next((note for note in notes if note.startswith(start)), None)


def note_training(error: BaseException, iteration: int) -> None:
    """Note on an error that the training was running."""
    add_note(error, f'{_NOTE} {iteration}.')


def was_training(error: BaseException) -> bool:
    """Whether an error came out of a running training."""
    return _noted(error, _NOTE) is not None


def save_at_end(runner: Runner, name: str) -> str:
    """Save the state with which a run stops itself.

    Returns:
        Where it is, or why it is nowhere, for the message.
    """
    try:
        runner.save_checkpoint(runner.work_dir, name, by_epoch=False)
    except OSError as error:
        return f'could not be saved ({error.strerror or error})'
    return f'is in {runner.work_dir}/{name}'
