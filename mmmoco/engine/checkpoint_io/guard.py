"""Make mmengine read and write checkpoints through this package."""

import functools
import io
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlparse

import mmengine.runner.checkpoint as theirs
import torch
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import checkpoint_hook
from mmengine.infer import BaseInferencer
from mmengine.runner import CheckpointLoader
from torch import Tensor

from mmmoco.messages import log_info, log_warning
from mmmoco.private_names import Shared, replaced

from .contents import state_dict_of
from .fitting import layout_of
from .latest import find_latest
from .reading import (
    CheckpointError,
    PathLike,
    UnsafeCheckpointError,
    read,
    read_any,
)
from .restricted import MapLocation
from .writing import remove_leftovers, write, write_text

_save_elsewhere = theirs.save_checkpoint


class _TorchThatReads:
    """``torch`` for one module, but that it reads by this package."""

    def __getattr__(self, name: str) -> Any:
        return load_from_local if name == 'load' else getattr(torch, name)


@contextmanager
def _guard() -> Iterator[None]:
    """Replace what the docstring of the package lists.

    Raises:
        RuntimeError: This mmengine lacks a place that has to be replaced.
    """
    runners = [
        import_module(f'mmengine.runner{name}')
        for name in ('', '.runner', '.checkpoint')
    ]
    schemes = {**CheckpointLoader._schemes, '': load_from_local}
    with ExitStack() as stack:
        try:
            for owner, name, value in (
                (theirs, 'torch', _TorchThatReads()),
                (theirs, 'load_url', _load_url),
                (theirs, '_load_checkpoint_with_prefix', _load_below),
                (CheckpointLoader, '_schemes', schemes),
                *((m, 'save_checkpoint', _save_checkpoint) for m in runners),
                *(
                    (m, 'find_latest_checkpoint', find_latest_for_all)
                    for m in runners
                ),
                (checkpoint_hook, 'open', _open_atomically),
                (BaseInferencer, '_init_model', _without_config_text()),
            ):
                stack.enter_context(replaced(owner, name, value))
        except AttributeError as error:
            raise RuntimeError(
                f'mmmoco cannot make this mmengine read checkpoints safely '
                f'({error}). Install the version that mmmoco requires.'
            ) from error
        yield


#: While it is entered, as a context or a decorator, every checkpoint that
#: mmengine, mmpretrain, mmdet and mmseg read or write goes through this
#: package.
guarded = Shared(_guard)


@guarded
def load(path: PathLike, map_location: MapLocation = 'cpu') -> Any:
    """Read a file, or what mmengine finds behind a URL.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It cannot be read, as by :func:`read`.
    """
    return CheckpointLoader.load_checkpoint(str(path), map_location)


def read_weights(
    path: PathLike, prefix: str = '', map_location: MapLocation = 'cpu'
) -> dict[str, Tensor]:
    """Read the weights of a file, or of one in the cache of a URL.

    Args:
        path: File, or a URL that mmengine loads.
        prefix: Take those below it, and leave it out of their names.
        map_location: As for ``torch.load``.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: It cannot be read, or has nothing below the prefix.
    """
    if '://' in str(path):
        content = load(path, map_location)
    else:
        content = read(path, map_location)
    weights = state_dict_of(content, str(path))
    if not prefix:
        return weights
    found = {
        name.removeprefix(prefix): value
        for name, value in weights.items()
        if name.startswith(prefix)
    }
    if not found:
        raise CheckpointError(
            f'{path} holds nothing below prefix={prefix!r}; '
            f'{layout_of(list(weights))}.'
        )
    return found


def load_from_local(
    file: PathLike | IO[bytes], map_location: MapLocation = None, **_: Any
) -> Any:
    """Load a file for mmengine, which logs the last part of this name."""
    return read_any(file, map_location)


def _load_below(
    prefix: str, filename: str, map_location: MapLocation = None
) -> dict[str, Any]:
    return read_weights(filename, f'{prefix.rstrip(".")}.', map_location)


def _load_url(
    url: str,
    model_dir: PathLike | None = None,
    map_location: MapLocation = None,
    progress: bool = True,
    check_hash: bool = False,
    file_name: str | None = None,
) -> Any:
    """Do as ``torch.hub.load_state_dict_from_url``, in its cache, safely."""
    folder = Path(model_dir or Path(torch.hub.get_dir()) / 'checkpoints')
    folder.mkdir(parents=True, exist_ok=True)
    name = file_name or os.path.basename(urlparse(url).path)
    path = folder / name
    if not path.exists():
        log_info(f'Downloading {url} to {path}')
        match = torch.hub.HASH_REGEX.search(name) if check_hash else None
        try:
            torch.hub.download_url_to_file(
                url, str(path), match and match.group(1), progress
            )
        except OSError as error:
            raise CheckpointError(
                f'{url} cannot be downloaded ({error}). Put {name} into '
                f'{folder}, which another machine may fill, or name a file '
                'with such weights instead: --init FILE.'
            ) from error
    try:
        return read_any(path, map_location)
    except UnsafeCheckpointError:
        raise
    except CheckpointError as error:
        raise CheckpointError(
            f'{error} Delete {path} to have {url} downloaded again.'
        ) from error


def _save_checkpoint(
    checkpoint: dict[str, Any],
    filename: str,
    file_client_args: dict[str, Any] | None = None,
    backend_args: dict[str, Any] | None = None,
) -> None:
    where = {**(file_client_args or {}), **(backend_args or {})}
    local = where.get('backend', 'local') in ('local', 'disk')
    if local and '://' not in str(filename):
        write(checkpoint, filename)
    else:
        _save_elsewhere(checkpoint, filename, file_client_args, backend_args)


def find_latest_for_all(path: str, out_dir: str | None = None) -> str | None:
    """Let rank 0 choose for all, and clear away what a kill left.

    Args:
        path: Work dir.
        out_dir: As for `find_latest`.

    Raises:
        CheckpointError: As `find_latest`, on all ranks.
    """
    outcome: list[Any] = [None, None]
    if is_main_process():
        try:
            outcome[0] = find_latest(path, out_dir)
            for leftover in remove_leftovers(path):
                log_warning(
                    f'Removed {leftover}, left by a save that was cut off.'
                )
        except (CheckpointError, OSError) as error:
            outcome[1] = str(error)
    broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise CheckpointError(outcome[1])
    return outcome[0]


@contextmanager
def _open_atomically(path: PathLike, mode: str) -> Iterator[IO[str]]:
    """Stand in for ``open`` where ``CheckpointHook`` writes its pointer."""
    text = io.StringIO()
    yield text
    write_text(path, text.getvalue())


def _without_config_text() -> Callable[..., Any]:
    """Guard the inferencers, which build a model from a file's config text."""
    build = BaseInferencer._init_model

    @functools.wraps(build)
    def init_model(
        self: Any, cfg: Any, weights: Any = None, device: str = 'cpu'
    ) -> Any:
        if not cfg:
            raise CheckpointError(
                f'{weights}: the config text inside a checkpoint is code and '
                'is not executed. Give the config too.'
            )
        return build(self, cfg, weights, device)

    return init_model
