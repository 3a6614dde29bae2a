"""Read checkpoints without running what is in them."""

import os
import pickle
import re
import zipfile
import zlib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import torch
from mmengine.logging import print_log
from torch import _weights_only_unpickler

from .restricted import only_plain_data, thaw

PathLike = str | os.PathLike[str]
MapLocation = str | torch.device | dict[str, str] | Callable[..., Any] | None

_MEND = 'Copy or download it again, or use an older checkpoint.'
# Where torch's message names what the file asked for
_REFUSED = (
    r'GLOBAL (\S+) (?:was not an allowed|whose module)',
    r'unrecognized function (.+)',
    r'but got (.+)',
)


class CheckpointError(RuntimeError):
    """A checkpoint cannot be used; the message names it and the mend."""


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint holds more than plain data and was not loaded.

    Deliberately no ``pickle.UnpicklingError``: mmengine answers that one by
    trying again with everything allowed.
    """


def read(path: PathLike, map_location: MapLocation = 'cpu') -> dict[str, Any]:
    """Read a checkpoint as plain data: tensors, numbers, text, containers.

    Files ending in ``.safetensors`` come back as ``{'state_dict': …}``. Plain
    pickles ending in ``.pkl`` (of protocol 2) and all other files are read by
    torch's restricted unpickler, with no fallback.
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
    source: PathLike | IO[bytes], map_location: MapLocation = 'cpu'
) -> Any:
    """Read like :func:`read`, from a file object too and whatever it holds."""
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
        return _read_safetensors(path, location)
    _verify_checksums(path)
    return _load(path, str(path), location)


def _load(
    source: Path | IO[bytes], name: str, map_location: MapLocation
) -> Any:
    try:
        with only_plain_data():
            loaded = _unpickle(source, map_location)
        return _disarm(thaw(loaded), name)
    except pickle.UnpicklingError as error:
        raise _refusal(source, name, str(error)) from None
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if 'weights_only' in str(error):
            raise _unsafe(
                name,
                'TorchScript and old tar files cannot be loaded without '
                'trusting them',
            ) from None
        # A damaged stream fails in any way: KeyError, EOFError, struct.error
        reason = str(error).strip().split('\n')[0]
        raise CheckpointError(
            f'{name} cannot be read as a checkpoint '
            f'({type(error).__name__}: {reason}). {_MEND}'
        ) from error


def _unpickle(source: Path | IO[bytes], map_location: MapLocation) -> Any:
    if isinstance(source, Path) and source.suffix == '.pkl':
        # A plain pickle, as Detectron2 exchanges weights: the same restricted
        # unpickler, without the archive that torch puts around it.
        with source.open('rb') as file:
            return _weights_only_unpickler.load(file)
    return torch.load(source, map_location=map_location, weights_only=True)


def _refusal(
    source: Path | IO[bytes], name: str, reason: str
) -> CheckpointError:
    pickled = True
    if isinstance(source, Path):
        with source.open('rb') as file:
            pickled = file.read(2).startswith((b'PK', b'\x80'))
    matches = (re.search(pattern, reason) for pattern in _REFUSED)
    culprit = next((match.group(1) for match in matches if match), None)
    if culprit is None and not pickled:
        return CheckpointError(f'{name} is no checkpoint. {_MEND}')
    asked = f'`{ascii(culprit)[1:-1]}`' if culprit else 'an unknown operation'
    return _unsafe(
        name,
        f'loading it would need {asked}, which is not plain data and could '
        'run code',
    )


def _unsafe(name: str, reason: str) -> UnsafeCheckpointError:
    return UnsafeCheckpointError(
        f'{name} was refused: {reason}. Nothing of it was run. If you trust '
        'its origin, load it there with torch.load(…, weights_only=False) and '
        "save only the tensors: torch.save({'state_dict': …}, new_path)."
    )


def _verify_checksums(path: Path) -> None:
    # torch compares no checksums when it loads. Those of 0 were not computed
    # (torch.serialization.set_crc32_options(False)).
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.CRC:
                    with archive.open(entry) as stream:
                        while stream.read(1 << 20):
                            pass
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise CheckpointError(
            f'{path} is damaged ({error}). {_MEND}'
        ) from None


def _disarm(loaded: Any, name: str) -> Any:
    meta = loaded.get('meta') if isinstance(loaded, dict) else None
    if isinstance(meta, dict) and 'config' in meta:
        meta['config_text'] = meta.pop('config')
        print_log(
            f"{name}: the config text in its meta is kept as 'config_text' "
            'and not executed.',
            logger='current',
        )
    return loaded


def _read_safetensors(path: Path, map_location: MapLocation) -> dict[str, Any]:
    try:
        safetensors = import_module('safetensors')
    except ImportError as error:
        raise ImportError(
            f'{path} needs the safetensors library: pip install safetensors'
        ) from error
    device = (
        str(map_location)
        if isinstance(map_location, str | torch.device)
        else 'cpu'
    )
    try:
        with safetensors.safe_open(
            path, framework='pt', device=device
        ) as file:
            names = file.keys()
            tensors = {name: file.get_tensor(name) for name in names}
            meta = dict(file.metadata() or {})
    except safetensors.SafetensorError as error:
        raise CheckpointError(
            f'{path} cannot be read as safetensors ({error}). {_MEND}'
        ) from error
    return _disarm({'state_dict': tensors, 'meta': meta}, str(path))
