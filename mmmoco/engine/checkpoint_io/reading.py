"""Read checkpoints without running what is in them."""

import io
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import torch

from mmmoco.messages import clipped, library, log_info
from mmmoco.plain_pickle import NotPlainError

from . import layouts
from .restricted import MapLocation

PathLike = str | os.PathLike[str]

#: How torch says that the memory of the machine is used up.
_NO_MEMORY = re.compile("can't allocate memory|not enough memory")
#: What the metadata of our .safetensors hold as JSON.
_JSON = {'backbone', 'imported', 'input_range', 'preprocessing'}
_MEND = 'Copy or download it again, or use an older checkpoint.'


class CheckpointError(RuntimeError):
    """A checkpoint cannot be used; the message names it and the mend."""


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint holds more than plain data and was not loaded.

    Deliberately no ``pickle.UnpicklingError``: mmengine answers that one by
    trying again with everything allowed.
    """


def read(path: PathLike, map_location: MapLocation = 'cpu') -> dict[str, Any]:
    """Read a checkpoint as plain data: tensors, numbers, text, containers.

    Files ending in ``.safetensors`` come back as ``{'state_dict': …}``. All
    others are told by their first bytes: archives as torch writes them, those
    of torch before 1.6, plain pickles. What comes out is plain: dictionaries
    (also of what was an ``argparse.Namespace``), lists, tuples, sets, text,
    numbers, tensors without gradient, arrays of numpy, ``HistoryBuffer``.
    Config text in ``meta['config']``, which mmengine would execute on resume,
    comes back as ``meta['config_text']``.

    Raises:
        FileNotFoundError: There is no such file.
        UnsafeCheckpointError: Loading it would need more than plain data.
        CheckpointError: It is damaged, empty or no checkpoint.
    """
    checkpoint = read_any(path, map_location)
    if not isinstance(checkpoint, dict):
        raise CheckpointError(
            f'{os.fspath(path)} holds a {type(checkpoint).__name__}, not a '
            'dictionary. Save it as {"state_dict": …}.'
        )
    return checkpoint


def read_any(
    source: PathLike | IO[bytes],
    map_location: MapLocation = 'cpu',
    only: str | None = None,
) -> Any:
    """Read like :func:`read`, from a file object too and whatever it holds.

    With ``only`` other entries of a dictionary need not be read.
    """
    location = 'cpu' if map_location is None else map_location
    if not isinstance(source, str | os.PathLike):
        return _load(source, 'the downloaded checkpoint', location)
    path = Path(source).expanduser()
    if not path.exists():
        raise FileNotFoundError(
            f'{path}: no such checkpoint. Check the path; relative paths '
            f'start at {Path.cwd()}.'
        )
    if not path.is_file():
        raise CheckpointError(
            f'{path} is no file. Give the path of the checkpoint itself.'
        )
    if path.stat().st_size == 0:
        raise CheckpointError(f'{path} is empty. {_MEND}')
    if path.suffix == '.safetensors':
        return _read_safetensors(path, location, only)
    return _load(path, str(path), location, only)


def _load(
    source: Path | IO[bytes],
    name: str,
    map_location: MapLocation,
    only: str | None = None,
) -> Any:
    try:
        if isinstance(source, Path):
            with source.open('rb') as file:
                loaded = layouts.load(file, map_location, only)
        else:
            loaded = layouts.load(_seekable(source), map_location)
    except NotPlainError as error:
        raise _refusal(name, error.asked) from None
    except layouts.UnknownLayoutError:
        raise CheckpointError(f'{name} is no checkpoint. {_MEND}') from None
    except (MemoryError, torch.cuda.OutOfMemoryError) as error:
        raise _too_large(name) from error
    except Exception as error:
        if _NO_MEMORY.search(str(error)):
            raise _too_large(name) from error
        # A damaged stream fails in any way: KeyError, EOFError, struct.error
        reason = _in_short(str(error).strip().split('\n')[0])
        raise CheckpointError(
            f'{name} cannot be read as a checkpoint '
            f'({type(error).__name__}: {reason}). {_MEND}'
        ) from error
    return _disarm(loaded, name)


def _too_large(name: str) -> CheckpointError:
    return CheckpointError(
        f'{name} cannot be read, since there is too little memory: end other '
        'programs, or read it on a larger machine.'
    )


def _seekable(source: IO[bytes]) -> IO[bytes]:
    if hasattr(source, 'readinto') and source.seekable():
        return source
    return io.BytesIO(source.read())


def _refusal(name: str, asked: str) -> UnsafeCheckpointError:
    reason = (
        'TorchScript and old tar files cannot be loaded without trusting them'
        if asked in ('TorchScript', 'an old tar file')
        else f'loading it would need `{_in_short(asked)}`, which is not plain '
        'data and could run code'
    )
    return UnsafeCheckpointError(
        f'{name} was refused: {reason}. Nothing of it was run. If you trust '
        'its origin, load it there with torch.load(…, weights_only=False) and '
        "save only the tensors: torch.save({'state_dict': …}, new_path)."
    )


def _in_short(text: str) -> str:
    """Cut what a file may have made long, or unprintable."""
    return clipped(''.join(c if c.isprintable() else '?' for c in text), 200)


def _disarm(loaded: Any, name: str) -> Any:
    meta = loaded.get('meta') if isinstance(loaded, dict) else None
    if isinstance(meta, dict) and 'config' in meta:
        meta['config_text'] = meta.pop('config')
        log_info(
            f"{name}: the config text in its meta is kept as 'config_text' "
            'and not executed.'
        )
    return loaded


def _read_safetensors(
    path: Path, map_location: MapLocation, only: str | None
) -> dict[str, Any]:
    safetensors = library('safetensors', str(path))
    named = isinstance(map_location, str | torch.device)
    device = str(map_location) if named else 'cpu'
    try:
        with safetensors.safe_open(
            path, framework='pt', device=device
        ) as file:
            names = file.keys() if only in (None, 'state_dict') else ()
            tensors = {name: file.get_tensor(name) for name in names}
            meta = _from_json(file.metadata() or {})
    except (MemoryError, torch.cuda.OutOfMemoryError) as error:
        raise _too_large(str(path)) from error
    except safetensors.SafetensorError as error:
        raise CheckpointError(
            f'{path} cannot be read as safetensors ({error}). {_MEND}'
        ) from error
    return _disarm({'state_dict': tensors, 'meta': meta}, str(path))


def _from_json(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return metadata, which are text, as our other files have them."""
    meta: dict[str, Any] = dict(metadata)
    for name in _JSON & meta.keys():
        with suppress(ValueError, RecursionError):
            meta[name] = json.loads(meta[name])
    return meta
