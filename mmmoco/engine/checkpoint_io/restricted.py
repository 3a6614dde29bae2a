"""What may stand in a checkpoint besides tensors, and how it is rebuilt.

``torch.load(weights_only=True)`` knows tensors and plain containers. A file of
mmengine's runner also holds NumPy arrays and ``HistoryBuffer``s, and the files
of some reference implementations an ``argparse.Namespace``.

NumPy's own unpickling functions are not made for hostile input: from a forged
dtype or an object array laid over raw bytes they build objects out of bad
pointers. So the unpickler never meets them. It gets stand-ins that only keep
what the file says, and :func:`thaw` turns these into checked, real objects.
"""

import argparse
import pickle
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

_SWAP = threading.Lock()
# bool, integers, floats, complex, byte and text strings: no objects, no
# records, no raw memory.
_PLAIN_DTYPE = re.compile(r'[biufcSU]\d+')


class _Dtype:
    def __init__(self, code: str, *_: object) -> None:
        if not (isinstance(code, str) and _PLAIN_DTYPE.fullmatch(code)):
            raise pickle.UnpicklingError(f'but got numpy dtype {code!a}')
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        # (version, byte order, subdtype, names, fields, …)
        if tuple(state[2:5]) != (None, None, None):
            raise pickle.UnpicklingError('but got a structured numpy dtype')
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    def __init__(self, *description: object) -> None:
        if description:
            raise pickle.UnpicklingError('but got a numpy array over raw data')

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        if not (isinstance(dtype, _Dtype) and isinstance(raw, bytes)):
            raise pickle.UnpicklingError('but got a numpy array of objects')
        view: np.ndarray[Any, Any] = np.ndarray(
            shape, dtype.dtype, buffer=raw, order='F' if fortran else 'C'
        )
        if view.nbytes != len(raw):
            raise ValueError('a numpy array has more data than its shape')
        self.array = view.copy(order='K')


class _History:
    def __setstate__(self, state: dict[str, Any]) -> None:
        self.state = state

    @cached_property
    def buffer(self) -> HistoryBuffer:
        buffer = HistoryBuffer(max_length=int(self.state['max_length']))
        for name in ('_log_history', '_count_history'):
            setattr(buffer, name, self.state[name].array)
        return buffer


def _rebuild_array(*_: object) -> _Array:
    return _Array()


def _rebuild_scalar(dtype: _Dtype, raw: bytes) -> Any:
    return np.frombuffer(raw, dtype.dtype)[0]


def _no_bytes() -> bytes:
    """Stand in for ``bytes``, by which the data of an empty array is saved."""
    return b''


def _method_of_history(owner: object, name: str) -> str:
    """Stand in for the ``getattr`` by which a file names buffer statistics.

    The statistics of the class in memory are the ones used afterwards.
    """
    if owner is not _History or name.startswith('_'):
        raise pickle.UnpicklingError('GLOBAL getattr was not an allowed')
    return name


_ALLOWED: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_History, 'mmengine.logging.history_buffer.HistoryBuffer'),
    (_method_of_history, 'builtins.getattr'),
    (_no_bytes, 'builtins.bytes'),
    (_Array, 'numpy.ndarray'),
    (_Dtype, 'numpy.dtype'),
    (_rebuild_array, 'numpy._core.multiarray._reconstruct'),
    (_rebuild_array, 'numpy.core.multiarray._reconstruct'),
    (_rebuild_scalar, 'numpy._core.multiarray.scalar'),
    (_rebuild_scalar, 'numpy.core.multiarray.scalar'),
    (argparse.Namespace, 'argparse.Namespace'),
]


@contextmanager
def only_plain_data() -> Iterator[None]:
    """Let torch's restricted unpickler accept exactly the list above.

    What other libraries have added to the process-wide list is set aside
    meanwhile: with a real ``getattr`` on it a file could call anything.
    """
    serialization = torch.serialization
    with _SWAP:
        others = serialization.get_safe_globals()
        serialization.clear_safe_globals()
        try:
            with serialization.safe_globals(_ALLOWED):
                yield
        finally:
            serialization.add_safe_globals(others)


def thaw(value: Any, seen: set[int] | None = None) -> Any:
    """Replace the stand-ins in an unpickled object by what they stand for.

    Containers are changed in place. A function or class that the file left as
    a value is refused, so that none can pose as a method later.
    """
    seen = set() if seen is None else seen
    if isinstance(value, _Array):
        return value.array
    if isinstance(value, _Dtype):
        return value.dtype
    if isinstance(value, _History):
        return value.buffer
    if callable(value):
        raise pickle.UnpicklingError(f'but got {value!r}')
    if type(value) is tuple:
        return tuple(thaw(item, seen) for item in value)
    if id(value) in seen:
        return value
    seen.add(id(value))
    if isinstance(value, set):
        for item in value:
            thaw(item, seen)
    elif isinstance(value, list):
        value[:] = [thaw(item, seen) for item in value]
    elif isinstance(value, dict):
        for key, item in value.items():
            value[key] = thaw(item, seen)
        if isinstance(value, OrderedDict):
            _keep_only_metadata(value, seen)
    elif isinstance(value, argparse.Namespace):
        thaw(vars(value), seen)
    return value


def _keep_only_metadata(mapping: Any, seen: set[int]) -> None:
    # A state dict carries its modules' versions as an attribute; any other
    # attribute could only hide a method.
    attributes = vars(mapping)
    for name in set(attributes) - {'_metadata'}:
        del attributes[name]
    thaw(attributes, seen)
