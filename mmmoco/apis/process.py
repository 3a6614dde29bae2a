"""A job leaves its process as it was; nothing heavy is imported here."""

from __future__ import annotations

import functools
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, ParamSpec, TypeVar

from mmmoco.openmmlab import (
    OPS,
    explain_refusal,
    how_to_compile,
    how_to_install,
)

_P = ParamSpec('_P')
_R = TypeVar('_R')

#: OpenCV reads it when it is imported: foreign pipelines that decode with it
#: then refuse image bombs, as LoadRGB does.
LIMIT = {'OPENCV_IO_MAX_IMAGE_PIXELS': str(100_000_000)}

#: Whose warnings about their own old names nobody here can act upon.
_BELOW_US = (
    r'(mmengine|mmcv|mmpretrain|mmdet|mmseg|timm|torch|torchvision)(\.|$)'
)
_OUTDATED = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)


#: What everything needs, and extras alone bring.
OPENMMLAB = ('mmengine', 'mmcv', 'mmpretrain')


def require_openmmlab() -> None:
    """Check that OpenMMLab's packages are there.

    Raises:
        ImportError: If one is not, with how to install it.
    """
    missing = _missing()
    if missing:
        verb = 'is' if len(missing) == 1 else 'are'
        raise ImportError(
            f'{", ".join(missing)} {verb} not installed: '
            f'{how_to_install(*missing)}.',
            name=missing[0],
        )


def lacks_openmmlab(error: BaseException) -> bool:
    """Whether an error is about a package of OpenMMLab that is not there."""
    return isinstance(error, ImportError) and error.name in {OPS, *_missing()}


def _missing() -> list[str]:
    return [name for name in OPENMMLAB if find_spec(name) is None]


def tidy(job: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let what a job sets for its process hold as long as the job.

    That is what mmengine's runner sets (the environment, OpenCV's threads,
    the way to start processes, loggers and scopes), and what we replace in
    it. A path may also be one of pathlib.
    """

    @functools.wraps(job)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        require_openmmlab()
        args = tuple(map(_plain, args))  # type: ignore[assignment]
        kwargs = {  # type: ignore[assignment]
            name: _plain(value) for name, value in kwargs.items()
        }
        try:
            with _environment_kept(), _noise_silenced(), _libraries_kept():
                return job(*args, **kwargs)
        except ImportError as error:
            if error.name == OPS:
                text = how_to_compile(error)
                raise ImportError(text, name=OPS) from error
            raise
        except AssertionError as error:
            if (refused := explain_refusal(error)) is not None:
                raise ImportError(refused) from error
            raise

    return run


def _plain(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


@contextmanager
def _environment_kept() -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update({**LIMIT, **before})
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def _noise_silenced() -> Iterator[None]:
    """Let the libraries below us keep to themselves what is theirs to mend.

    What python was started with (``-W``, ``PYTHONWARNINGS``) counts more.
    """
    with warnings.catch_warnings():
        if not sys.warnoptions:
            for kind in _OUTDATED:
                warnings.filterwarnings('ignore', '', kind, _BELOW_US)
            # What it lacks is an error where it is needed.
            theirs = 'Fail to import|In MMCV v1'
            warnings.filterwarnings('ignore', theirs, UserWarning, 'mmcv')
            # They pin memory where there is no device to copy it to.
            pinning = r'torch\.utils\.data(\.|$)'
            warnings.filterwarnings('ignore', '', UserWarning, pinning)
            if os.environ.get('RANK', '0') != '0':
                warnings.simplefilter('ignore')
        yield


@contextmanager
def _libraries_kept() -> Iterator[None]:
    import multiprocessing

    import cv2
    import torch

    from mmmoco.engine.checkpoint_io import guarded
    from mmmoco.engine.class_folders import hidden_skipped
    from mmmoco.engine.instances import own_instances
    from mmmoco.engine.screen import noise_kept_off

    threads = cv2.getNumThreads()
    benchmark = torch.backends.cudnn.benchmark
    start = multiprocessing.get_start_method(allow_none=True)
    try:
        with guarded, hidden_skipped, own_instances(), noise_kept_off():
            yield
    finally:
        cv2.setNumThreads(threads)
        torch.backends.cudnn.benchmark = benchmark
        multiprocessing.set_start_method(start, force=True)
