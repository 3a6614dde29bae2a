"""What else may stand in a checkpoint than plain data, and how it is built.

Tensors, and what mmengine's runner and some reference implementations save:
``HistoryBuffer`` and ``argparse.Namespace``. Each name that a file may give is
listed here with a function of ours; ``mmmoco.plain_pickle`` reads the rest.
"""

import functools
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

from mmmoco.messages import shortened
from mmmoco.plain_pickle import (
    PLAIN,
    Builder,
    Named,
    Node,
    NotPlainError,
    Stateful,
    builders,
    is_size,
)

MapLocation = str | torch.device | dict[str, str] | Callable[..., Any] | None

#: A tensor may repeat the numbers of its storage (``expand``) up to so many
#: elements; beyond, a few bytes could stand for all memory there is.
_MOST_REPEATED = 2**16
_MOST_DIMENSIONS = 64
_LOCATION = re.compile(r'[a-z]+(:\d{1,4})?')

_HISTORY = 'mmengine.logging.history_buffer.HistoryBuffer'
_STORAGES = {
    'DoubleStorage': torch.float64,
    'FloatStorage': torch.float32,
    'HalfStorage': torch.float16,
    'BFloat16Storage': torch.bfloat16,
    'LongStorage': torch.int64,
    'IntStorage': torch.int32,
    'ShortStorage': torch.int16,
    'CharStorage': torch.int8,
    'ByteStorage': torch.uint8,
    'BoolStorage': torch.bool,
    'ComplexDoubleStorage': torch.complex128,
    'ComplexFloatStorage': torch.complex64,
}
#: Of one byte or more for each element.
_DTYPES = (
    *('float64', 'float32', 'float16', 'bfloat16'),
    *('float8_e4m3fn', 'float8_e5m2', 'float8_e4m3fnuz', 'float8_e5m2fnuz'),
    *('int64', 'int32', 'int16', 'int8'),
    *('uint64', 'uint32', 'uint16', 'uint8', 'bool'),
    *('complex128', 'complex64', 'complex32'),
)


class _StorageType(Named):
    def __init__(self, name: str, dtype: torch.dtype | None) -> None:
        super().__init__(name)
        self.dtype = dtype  # None: untyped


class Memory:
    """The bytes of one storage, moved to where they are wanted.

    Args:
        length: In bytes.
        location: Where they were when they were saved.
        wanted: Where they shall be.
    """

    def __init__(
        self, length: int, location: str, wanted: MapLocation
    ) -> None:
        self.length = length
        self._location, self._wanted = location, wanted
        #: Reads the bytes when they are needed.
        self.fill: Callable[[memoryview], object] | None = None

    @functools.cached_property
    def content(self) -> torch.Tensor:
        """The bytes as one-dimensional uint8 tensor where they shall be.

        Raises:
            ValueError: If the file does not hold them.
        """
        if self.fill is None:
            raise ValueError('the file lacks a storage')
        bytes_ = torch.empty(self.length, dtype=torch.uint8)
        array: Any = bytes_.numpy()
        self.fill(memoryview(array))
        return self._moved(bytes_)

    @functools.cached_property
    def holds_truth_values(self) -> bool:
        """Whether each byte is 0 or 1."""
        return not (self.content > 1).any()

    def _moved(self, bytes_: torch.Tensor) -> torch.Tensor:
        wanted = self._wanted
        if callable(wanted):
            storage = wanted(bytes_.untyped_storage(), self._location)
            if storage is not None:
                empty = torch.empty(
                    0, dtype=torch.uint8, device=storage.device
                )
                return empty.set_(storage)
            wanted = self._location
        if isinstance(wanted, dict):
            wanted = wanted.get(self._location, self._location)
        return bytes_.to(wanted or 'cpu')


class Storage(Named):
    """Part of a memory, which tensors view.

    Args:
        memory: The whole.
        dtype: Of the elements.
        numel: Their number.
        first: Where they begin in the memory, in elements.
    """

    def __init__(
        self, memory: Memory, dtype: torch.dtype, numel: int, first: int = 0
    ) -> None:
        super().__init__('a storage without a tensor')
        self.memory, self.dtype = memory, dtype
        self.numel, self.first = numel, first


def identify(name: Any, wanted: int) -> tuple[torch.dtype, str, str, int]:
    """Check how a pickle refers to a storage.

    Args:
        name: What the pickle says.
        wanted: Number of its entries.

    Returns:
        Dtype, key, location and number of elements.

    Raises:
        NotPlainError: It is no storage.
        ValueError: It is none that could be.
    """
    if type(name) is not tuple or len(name) < 1 or name[0] != 'storage':
        raise NotPlainError('data outside that are no storage')
    if len(name) != wanted:
        raise ValueError('a storage is described in another way')
    _, kind, key, location, numel = name[:5]
    if not isinstance(kind, _StorageType):
        raise NotPlainError('a storage of an unknown type')
    if not (type(key) is str and is_size(numel)):
        raise ValueError('a storage has no valid key or size')
    if type(location) is not str or not _LOCATION.fullmatch(location):
        raise ValueError(f'a storage lies on {location!a}')
    return kind.dtype or torch.uint8, key, location, numel


class _View(Node):
    """A tensor: shape, strides and place of its elements in a storage."""

    def __init__(
        self,
        storage: Any,
        offset: Any,
        size: Any,
        stride: Any,
        *,
        dtype: torch.dtype | None = None,
    ) -> None:
        if not isinstance(storage, Storage):
            raise NotPlainError('a tensor without a storage')
        self._storage = storage
        self._dtype = dtype or storage.dtype
        # An untyped storage counts bytes.
        old, new = storage.dtype.itemsize, self._dtype.itemsize
        available = storage.numel * old // new
        self._size, self._stride = tuple(size), tuple(stride)
        if not (
            len(self._size) == len(self._stride) <= _MOST_DIMENSIONS
            and all(map(is_size, (offset, *self._size, *self._stride)))
        ):
            raise ValueError(
                f'a tensor has size {_short(size)}, stride {_short(stride)} '
                f'and offset {_short(offset)}'
            )
        elements = math.prod(self._size)
        last = offset
        if elements:
            pairs = zip(self._size, self._stride, strict=True)
            last += 1 + sum((n - 1) * step for n, step in pairs)
        if (
            last > available
            or elements > max(available, _MOST_REPEATED)
            or math.prod(n or 1 for n in self._size) >= 2**62
        ):
            raise ValueError(
                f'a tensor of size {_short(size)} and stride {_short(stride)} '
                f'at {offset} lies outside its storage of {available} elements'
            )
        self._offset = offset + storage.first * old // new

    def value(self, finished: Callable[[Any], Any]) -> torch.Tensor:
        """Return the tensor; those of one storage share their memory."""
        memory = self._storage.memory
        if self._dtype == torch.bool and not memory.holds_truth_values:
            raise ValueError('a truth value is neither 0 nor 1')
        whole = memory.content
        empty = torch.empty(0, dtype=self._dtype, device=whole.device)
        return empty.set_(
            whole.untyped_storage(), self._offset, self._size, self._stride
        )


def _short(value: Any) -> str:
    return shortened(value, 80)


def _rebuild_tensor(*arguments: Any) -> _View:
    """Place and shape; whether it needs a gradient; hooks; metadata."""
    if any(arguments[5:]):
        raise NotPlainError('a tensor with hooks or metadata')
    return _View(*arguments[:4])


def _rebuild_tensor_of_dtype(*arguments: Any) -> _View:
    """As above, with the dtype before the metadata."""
    hooks, dtype, *metadata = arguments[5:]
    if hooks or any(metadata) or type(dtype) is not torch.dtype:
        raise NotPlainError('a tensor with hooks, metadata or no dtype')
    return _View(*arguments[:4], dtype=dtype)


def _rebuild_parameter(tensor: Any, requires_grad: object, hooks: Any) -> Any:
    if not isinstance(tensor, _View) or hooks:
        raise NotPlainError('a parameter that is no tensor')
    return tensor


def _size(items: Any) -> torch.Size:
    if type(items) is not tuple or not all(map(is_size, items)):
        raise NotPlainError('a torch.Size of other than sizes')
    return torch.Size(items)


def _device(kind: Any, index: Any = None) -> torch.device:
    if type(kind) is not str or not (index is None or is_size(index)):
        raise NotPlainError('a torch.device of other than a name')
    return torch.device(kind) if index is None else torch.device(kind, index)


class _History(Stateful):
    def value(self, finished: Callable[[Any], Any]) -> HistoryBuffer:
        # The statistics of the class in memory are those used afterwards.
        if type(self.state) is not dict:
            raise NotPlainError('a HistoryBuffer of anything else')
        names = ('max_length', '_log_history', '_count_history')
        longest, *columns = [finished(self.state[name]) for name in names]
        if not is_size(longest) or not longest:
            raise ValueError('the length of a HistoryBuffer is no number')
        if not are_series(*columns):
            raise ValueError('the values of a HistoryBuffer are no series')
        return HistoryBuffer(*columns, max_length=longest)


def are_series(*columns: Any) -> bool:
    """Whether all are one-dimensional arrays of as many numbers."""
    return all(
        isinstance(column, np.ndarray)
        and column.dtype.kind in 'biuf'
        and column.ndim == 1
        and len(column) == len(columns[0])
        for column in columns
    )


def _method_of_history(owner: Any, name: Any) -> str:
    """Stand in for the ``getattr`` by which a file names buffer statistics."""
    ours = isinstance(owner, Builder) and owner.build is _History
    if not ours or type(name) is not str or name.startswith('_'):
        raise NotPlainError('builtins.getattr')
    return name


class _Namespace(Stateful):
    def __init__(self) -> None:
        self.state = {}

    def value(self, finished: Callable[[Any], Any]) -> Any:
        if type(self.state) is not dict:
            raise NotPlainError('slots of argparse.Namespace')
        return finished(self.state)


#: Every name that a checkpoint may give.
KNOWN: dict[str, Any] = {
    **PLAIN,
    **builders(
        {
            'torch._utils._rebuild_tensor': _rebuild_tensor,
            'torch._utils._rebuild_tensor_v2': _rebuild_tensor,
            'torch._utils._rebuild_tensor_v3': _rebuild_tensor_of_dtype,
            'torch._utils._rebuild_parameter': _rebuild_parameter,
            'torch.Size': _size,
            'torch.device': _device,
            _HISTORY: _History,
            'builtins.getattr': _method_of_history,
            'argparse.Namespace': _Namespace,
        }
    ),
    # By which newer pickles name the statistics; not used.
    **{
        f'{_HISTORY}.{name}': Named(f'{_HISTORY}.{name}')
        for name in ('min', 'max', 'current', 'mean')
    },
    **{
        f'{module}.{name}': _StorageType(name, dtype)
        for module in ('torch', 'torch.cuda')
        for name, dtype in _STORAGES.items()
    },
    **{
        f'{module}.UntypedStorage': _StorageType('UntypedStorage', None)
        for module in ('torch', 'torch.storage')
    },
    **{
        f'torch.{name}': getattr(torch, name)
        for name in _DTYPES
        if hasattr(torch, name)  # The newest of them came with torch 2.3.
    },
}
