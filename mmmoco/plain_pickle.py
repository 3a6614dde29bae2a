"""Unpickle plain data: no class or function of a file's choice is ever met.

A pickle is a program for a small stack machine, and python's own machine
calls, and sets attributes of, whatever the program names. This one knows
numbers, text and containers. Any other name is looked up in a table of
builders, all of them ours; a name outside the table ends the reading.

Builders return plain values or a :class:`Node`, which keeps what the file
says. When the program has ended, :func:`finish` walks over what it left,
replaces each node by what it stands for, and lets nothing else pass than the
types that are listed here.
"""

import pickletools
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import IO, Any

import numpy as np
import torch

#: Each costs microseconds and some memory; an honest file has thousands.
MOST_OPERATIONS = 3_000_000
#: Values that a file stands for, shared ones counted wherever they appear.
MOST_VALUES = 20_000_000
DEEPEST = 100
#: Of a whole number: python refuses to print those of thousands of digits.
_BITS = 1024
#: Values in one key of a dictionary: the hash of a tuple visits them all.
_MOST_IN_KEY = 100
#: Letters of a key: what is found by its hash is then compared.
_LONGEST_KEY = 10_000
#: Values in all keys that are no text: everybody can compute their hashes,
#: and each of many with one hash is compared with all others.
MOST_OTHER_KEYS = 10_000
#: What calls may copy for each byte read, and besides. An honest file has
#: each argument once; what is recalled again and again is copied each time.
_MOST_COPIED, _COPIED_ANYWAY = 4, 1 << 20

_ATOMS = {
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    bytes,
    torch.Tensor,
    torch.dtype,
    torch.device,
    torch.Size,
}
_KEYS = _ATOMS - {torch.Tensor}
_DICTS = (dict, OrderedDict, Counter)
_CONTAINERS = {*_DICTS, list, tuple, set, frozenset, torch.Size}
# bool, integers, floats, complex, byte and text strings: no objects, no
# records, no raw memory.
_PLAIN_DTYPE = re.compile(r'[biufc]\d\d?|[SU][1-9]\d{0,4}')
_LARGEST_CHARACTER = 0x10FFFF


class NotPlainError(ValueError):
    """A pickle asks for more than plain data; ``asked`` says for what."""

    def __init__(self, asked: str) -> None:
        #: The name or thing, in printable letters.
        self.asked = ascii(asked)[1:-1]
        super().__init__(f'it asks for {self.asked}, which is no plain data')


class Node:
    """What a file says about a value that is built at the end."""

    name = 'a part of a value'

    def set_state(self, state: Any) -> None:
        """Take what the file gives as the state of the value.

        Raises:
            NotPlainError: If it can have none, as by default.
        """
        raise NotPlainError(self.name)

    def value(self, finished: Callable[[Any], Any]) -> Any:
        """Return the plain value; ``finished`` makes a part of it plain.

        Raises:
            NotPlainError: If it stands for none, as by default.
        """
        raise NotPlainError(self.name)


class Stateful(Node):
    """One that keeps its state for the end."""

    state: Any = None

    def set_state(self, state: Any) -> None:
        """Take it as it is."""
        self.state = state


class Named(Node):
    """A type that a file may name as an argument, and do nothing with."""

    def __init__(self, name: str) -> None:
        self.name = name


#: Returns a key that is plain and soon hashed.
_Check = Callable[[Any], Any]


class Builder(Named):
    """A function of ours that stands for one that a file names."""

    def __init__(self, name: str, build: Callable[..., Any]) -> None:
        super().__init__(name)
        self.build = build


class _Keyed(Builder):
    """One that makes keys, with what checks them as its first argument."""


class _Dtype(Node):
    def __init__(self, code: Any, *_: object) -> None:
        code = code.decode('latin1') if isinstance(code, bytes) else code
        if not (isinstance(code, str) and _PLAIN_DTYPE.fullmatch(code)):
            raise NotPlainError(f'numpy dtype {code!a}')
        self.dtype: np.dtype[Any] = np.dtype(code)

    def set_state(self, state: Any) -> None:
        # (version, byte order, subdtype, names, fields, …)
        if tuple(state[2:5]) != (None, None, None):
            raise NotPlainError('a structured numpy dtype')
        order: Any = state[1]
        order = order.decode('latin1') if isinstance(order, bytes) else order
        self.dtype = self.dtype.newbyteorder(order)

    def value(self, finished: Callable[[Any], Any]) -> Any:
        return self.dtype


def _checked(raw: Any, dtype: Any, of: str) -> bytes:
    """Return the bytes of numpy's values, if they are such of this type."""
    if isinstance(raw, str):  # as python 2 wrote it
        raw = raw.encode('utf-8', 'surrogateescape')
    if not (isinstance(dtype, _Dtype) and isinstance(raw, bytes)):
        raise NotPlainError(f'a numpy {of} of objects')
    if dtype.dtype.kind == 'b' and raw.strip(b'\0\1'):
        raise ValueError('a truth value is neither 0 nor 1')
    if dtype.dtype.kind == 'U' and raw:
        codes = np.dtype('u4').newbyteorder(dtype.dtype.byteorder)
        if np.frombuffer(raw, codes).max() > _LARGEST_CHARACTER:
            raise ValueError('a text of numpy holds no characters')
    return raw


class _Array(Stateful):
    def value(self, finished: Callable[[Any], Any]) -> Any:
        if self.state is None:
            raise NotPlainError('a numpy array over no data')
        _, shape, dtype, fortran, raw = self.state
        if not (type(shape) is tuple and all(map(is_size, shape))):
            raise ValueError('a numpy array has no valid shape')
        raw = _checked(raw, dtype, 'array')
        view: np.ndarray[Any, Any] = np.ndarray(
            shape, dtype.dtype, buffer=raw, order='F' if fortran else 'C'
        )
        if view.nbytes != len(raw):
            raise ValueError('a numpy array has more data than its shape')
        return view.copy(order='K')


def is_size(value: Any) -> bool:
    """Whether it is an integer that can be a size, and no bool."""
    return type(value) is int and 0 <= value < 2**62


def _reconstruct(kind: Any, *_: object) -> _Array:
    if not (isinstance(kind, Named) and kind.name == 'numpy.ndarray'):
        raise NotPlainError('an array that is no numpy.ndarray')
    return _Array()


def _scalar(dtype: Any, raw: Any) -> Any:
    raw = _checked(raw, dtype, 'scalar')
    (value,) = np.frombuffer(raw, dtype.dtype)
    return value


def _encode(text: Any, encoding: Any) -> bytes:
    """How python 3 pickles bytes for python 2."""
    if type(text) is not str or encoding not in ('latin1', b'latin1'):
        raise NotPlainError(f'the encoding {encoding!a}')
    return text.encode('latin1')


def _ordered(checked: _Check, pairs: Any = ()) -> OrderedDict[Any, Any]:
    return OrderedDict((checked(key), value) for key, value in _items(pairs))


def _items(pairs: Any) -> Any:
    if type(pairs) not in (list, tuple):
        raise NotPlainError(f'a dictionary from {type(pairs).__name__}')
    return pairs


def _counter(checked: _Check, counts: Any = None) -> Counter[Any]:
    counter: Counter[Any] = Counter()
    if counts is not None and type(counts) is not dict:
        raise NotPlainError(f'a counter from {type(counts).__name__}')
    for key, count in (counts or {}).items():
        dict.__setitem__(counter, checked(key), count)
    return counter


def _set(checked: _Check, items: Any = ()) -> set[Any]:
    return {checked(item) for item in _items(items)}


def _frozenset(checked: _Check, items: Any = ()) -> frozenset[Any]:
    return frozenset(_set(checked, items))


def _complex(real: Any, imaginary: Any) -> complex:
    if type(real) is not float or type(imaginary) is not float:
        raise NotPlainError('a complex number of other than numbers')
    return complex(real, imaginary)


def _no_bytes() -> bytes:
    """Stand in for ``bytes``, by which the data of an empty array is saved."""
    return b''


def builders(table: Mapping[str, Callable[..., Any]]) -> dict[str, Any]:
    """Make a table for :class:`Machine` of names and our functions."""
    return {name: Builder(name, build) for name, build in table.items()}


#: What any reader here knows.
PLAIN: dict[str, Any] = {
    'numpy.ndarray': Named('numpy.ndarray'),
    'collections.OrderedDict': _Keyed('collections.OrderedDict', _ordered),
    'collections.Counter': _Keyed('collections.Counter', _counter),
    'builtins.set': _Keyed('builtins.set', _set),
    'builtins.frozenset': _Keyed('builtins.frozenset', _frozenset),
    **builders(
        {
            'builtins.complex': _complex,
            'builtins.bytes': _no_bytes,
            '_codecs.encode': _encode,
            'numpy.dtype': _Dtype,
            'numpy._core.multiarray._reconstruct': _reconstruct,
            'numpy._core.multiarray.scalar': _scalar,
        }
    ),
}
#: Modules that were renamed.
_MOVED = {
    '__builtin__': 'builtins',
    'numpy.core.multiarray': 'numpy._core.multiarray',
}


class Machine:
    """Runs one pickle, and calls builders only; ``_do_x`` does what X says.

    Args:
        known: Builders and values by the names that a file may give.
        persistent: Returns what an identifier outside the pickle stands for.
        as_bytes: What the text of python 2 becomes.
    """

    def __init__(
        self,
        known: Mapping[str, Any] = PLAIN,
        persistent: Callable[[Any], Any] | None = None,
        as_bytes: bool = False,
    ) -> None:
        self._known = known
        self._persistent = persistent
        self._as_bytes = as_bytes
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # what lies under each mark
        self._memo: dict[int, Any] = {}
        self._read = self._copied = self._other_keys = 0

    def run(self, stream: IO[bytes]) -> Any:
        """Return what the pickle builds; it still holds nodes.

        Raises:
            NotPlainError: It asks for more than plain data.
            Exception: It is damaged, in any of many ways.
        """
        actions = {
            name: getattr(self, method) for name, method in _ACTIONS.items()
        }
        operations = pickletools.genops(stream)
        for count, (operation, argument, _) in enumerate(operations):
            if count > MOST_OPERATIONS:
                raise ValueError(
                    f'it has more than {MOST_OPERATIONS:,} operations; long '
                    'lists belong into tensors'
                )
            name = operation.name
            self._read += 2 + _weight(argument)
            if name in _PUSHED:
                if type(argument) is int and argument.bit_length() > _BITS:
                    raise ValueError('a number in it is too large')
                self._stack.append(argument)
            elif name in _MADE:
                self._stack.append(_MADE[name]())
            elif name in _SHORT_TUPLES:
                self._short_tuple(_SHORT_TUPLES[name])
            elif name == 'STOP':
                break
            elif name in actions:
                actions[name](argument)
            elif name not in ('PROTO', 'FRAME'):
                raise NotPlainError(f'the operation {name}')
        return self._stack.pop()

    # Containers

    def _do_mark(self, _: Any) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _down_to_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def _do_pop(self, _: Any) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._down_to_mark()

    def _do_pop_mark(self, _: Any) -> None:
        self._down_to_mark()

    def _do_dup(self, _: Any) -> None:
        self._stack.append(self._stack[-1])

    def _top(self, *kinds: type) -> Any:
        found = self._stack[-1]
        if type(found) not in kinds:
            raise NotPlainError(f'items in {_name_of(found)}')
        return found

    def _do_tuple(self, _: Any) -> None:
        items = tuple(self._down_to_mark())
        self._stack.append(items)

    def _short_tuple(self, length: int) -> None:
        if len(self._stack) < length:
            raise ValueError('a tuple lacks items')
        self._stack[-length:] = [tuple(self._stack[-length:])]

    def _do_list(self, _: Any) -> None:
        items = self._down_to_mark()
        self._stack.append(items)

    def _do_dict(self, _: Any) -> None:
        items = self._down_to_mark()
        self._stack.append({})
        self._put(items)

    def _do_frozenset(self, _: Any) -> None:
        items = self._down_to_mark()
        self._stack.append(_frozenset(self._key, items))

    def _do_append(self, _: Any) -> None:
        item = self._stack.pop()
        self._top(list).append(item)

    def _do_appends(self, _: Any) -> None:
        items = self._down_to_mark()
        self._top(list).extend(items)

    def _do_setitem(self, _: Any) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._put([key, value])

    def _do_setitems(self, _: Any) -> None:
        self._put(self._down_to_mark())

    def _put(self, items: list[Any]) -> None:
        target = self._top(*_DICTS)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[self._key(key)] = value

    def _do_additems(self, _: Any) -> None:
        items = self._down_to_mark()
        self._top(set).update(map(self._key, items))

    def _key(self, key: Any) -> Any:
        """Return a key that is plain and soon hashed."""
        self._other_keys += _values_in_key(key)
        if self._other_keys > MOST_OTHER_KEYS:
            raise ValueError(
                f'it has more than {MOST_OTHER_KEYS:,} keys that are no text'
            )
        return key

    # What came before

    def _do_put(self, place: int) -> None:
        self._memo[place] = self._stack[-1]

    _do_binput = _do_long_binput = _do_put

    def _do_memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _do_get(self, place: int) -> None:
        self._stack.append(self._memo[place])

    _do_binget = _do_long_binget = _do_get

    # Text of python 2, names, calls

    def _do_string(self, argument: str) -> None:
        raw = argument.encode('latin1')
        self._stack.append(
            raw if self._as_bytes else raw.decode('utf-8', 'surrogateescape')
        )

    _do_binstring = _do_short_binstring = _do_string

    def _do_global(self, argument: str) -> None:
        module, _, name = argument.partition(' ')
        self._stack.append(self._find(module, name))

    def _do_stack_global(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if type(name) is not str or type(module) is not str:
            raise NotPlainError('a name that is no text')
        self._stack.append(self._find(module, name))

    def _find(self, module: str, name: str) -> Any:
        found = self._known.get(f'{_MOVED.get(module, module)}.{name}')
        if found is None:
            raise NotPlainError(f'{module}.{name}')
        return found

    def _call(self, function: Any, arguments: Any) -> None:
        if not isinstance(function, Builder):
            raise NotPlainError(f'a call of {_name_of(function)}')
        if type(arguments) is not tuple:
            raise NotPlainError(f'{function.name} without arguments')
        self._charge(arguments)
        if isinstance(function, _Keyed):
            arguments = (self._key, *arguments)
        self._stack.append(function.build(*arguments))

    def _charge(self, arguments: tuple[Any, ...]) -> None:
        """Count what is copied, so that no file takes more than it brings."""
        self._copied += sum(map(_weight, arguments))
        if self._copied > _MOST_COPIED * self._read + _COPIED_ANYWAY:
            raise ValueError('it stands for much more than it holds')

    def _do_reduce(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        self._call(function, arguments)

    _do_newobj = _do_reduce

    def _do_newobj_ex(self, _: Any) -> None:
        if self._stack.pop() != {}:
            raise NotPlainError('a call with names')
        self._do_reduce(_)

    def _do_obj(self, _: Any) -> None:
        function, *arguments = self._down_to_mark()
        self._call(function, tuple(arguments))

    def _do_inst(self, argument: str) -> None:
        module, _, name = argument.partition(' ')
        arguments = self._down_to_mark()
        self._call(self._find(module, name), tuple(arguments))

    def _do_build(self, _: Any) -> None:
        state, target = self._stack.pop(), self._stack[-1]
        if isinstance(target, Node):
            if type(state) is tuple:  # An array copies its data.
                self._charge(state)
            target.set_state(state)
        elif type(target) is OrderedDict:
            # A state dict carries its modules' versions as an attribute.
            if type(state) is not dict or set(state) - {'_metadata'}:
                raise NotPlainError('attributes of an OrderedDict')
            vars(target).update(state)
        else:
            raise NotPlainError(f'attributes of {_name_of(target)}')

    def _do_binpersid(self, _: Any) -> None:
        if self._persistent is None:
            raise NotPlainError('data outside of the pickle')
        self._stack.append(self._persistent(self._stack.pop()))


_ACTIONS = {
    method.removeprefix('_do_').upper(): method
    for method in vars(Machine)
    if method.startswith('_do_')
}


def _name_of(value: Any) -> str:
    if isinstance(value, Named):
        return value.name
    return f'a {type(value).__name__}'


def _weight(value: Any) -> int:
    """Return about how many bytes a copy of a value takes."""
    kind = type(value)
    if kind is str or kind is bytes:
        return len(value)
    return 8 * len(value) if kind in _CONTAINERS else 0


def _values_in_key(key: Any) -> int:
    """Check that a key is plain and soon hashed.

    Returns:
        How many values are in it; 0: it is text, whose hash nobody guesses.
    """
    waiting, count = [key], 1
    while waiting:
        item = waiting.pop()
        kind = type(item)
        if kind is tuple or kind is frozenset or kind is torch.Size:
            count += len(item)
            if count > _MOST_IN_KEY:
                raise ValueError('a key is too long')
            waiting += item
        elif kind is str or kind is bytes:
            if len(item) > _LONGEST_KEY:
                raise ValueError('a key is too long')
        elif kind is int and item.bit_length() > 64:
            # Among larger ones it is easy to find many of one hash.
            raise ValueError('a key is too large a number')
        elif kind not in _KEYS and not isinstance(item, np.generic):
            raise NotPlainError(f'{_name_of(item)} as a key')
    return 0 if type(key) in (str, bytes) else count


#: Operations whose argument is the value.
_PUSHED = {
    *('INT', 'BININT', 'BININT1', 'BININT2', 'LONG', 'LONG1', 'LONG4'),
    *('FLOAT', 'BINFLOAT'),
    *('UNICODE', 'SHORT_BINUNICODE', 'BINUNICODE', 'BINUNICODE8'),
    *('SHORT_BINBYTES', 'BINBYTES', 'BINBYTES8'),
}
_MADE: dict[str, Callable[[], Any]] = {
    'NONE': lambda: None,
    'NEWTRUE': lambda: True,
    'NEWFALSE': lambda: False,
    'EMPTY_LIST': list,
    'EMPTY_DICT': dict,
    'EMPTY_SET': set,
    'EMPTY_TUPLE': tuple,
}
_SHORT_TUPLES = {'TUPLE1': 1, 'TUPLE2': 2, 'TUPLE3': 3}


def finish(graph: Any, most_bytes: int | None = None) -> Any:
    """Return plain data from what a :class:`Machine` built.

    Lists and dictionaries are filled in place, and what was shared stays so.

    Args:
        graph: What the machine built.
        most_bytes: Of all tensors and arrays together, shared ones counted
            wherever they appear, since who copies them takes as much.

    Raises:
        NotPlainError: Something else than plain data is in it.
        ValueError: It contains itself, or stands for too much.
    """
    return _Finisher(most_bytes)(graph)


class _Finisher:
    def __init__(self, most_bytes: int | None) -> None:
        self._most_bytes = most_bytes
        self._done: dict[int, tuple[Any, Any, int, int]] = {}
        self._versioned: dict[int, tuple[Any, Any]] = {}
        self._open: set[int] = set()
        self._count = self._bytes = 0

    def __call__(self, value: Any) -> Any:
        self._count += 1
        kind = type(value)
        if kind in _ATOMS or isinstance(value, np.generic | np.dtype):
            return value
        place = id(value)
        if place in self._done:
            _, result, size, held = self._done[place]
            self._count += size
            self._bytes += held
        else:
            before = self._count, self._bytes
            result = self._inside(value, kind, place)
            if isinstance(result, torch.Tensor | np.ndarray):
                self._bytes += result.nbytes
            size, held = self._count - before[0], self._bytes - before[1]
            # The value is kept, so that its id stays its own.
            self._done[place] = value, result, size, held
        if self._most_bytes is not None and self._bytes > self._most_bytes:
            raise ValueError('its tensors stand for much more than it holds')
        if self._count > MOST_VALUES:
            raise ValueError(f'it stands for more than {MOST_VALUES:,} values')
        return result

    def _inside(self, value: Any, kind: type, place: int) -> Any:
        if place in self._open:
            raise ValueError('it contains itself')
        if len(self._open) >= DEEPEST:
            raise ValueError(f'it is nested deeper than {DEEPEST} levels')
        self._open.add(place)
        result = value
        if isinstance(value, Node):
            result = value.value(self)
        elif kind is tuple:
            result = tuple([self(item) for item in value])
        elif kind is list:
            value[:] = [self(item) for item in value]
        elif kind in (set, frozenset):
            self._count += len(value)  # keys, which are plain
        elif kind in _DICTS:
            for key, item in value.items():
                value[key] = self(item)
            if kind is OrderedDict and vars(value):
                vars(value).update(
                    _metadata=self._versions(vars(value)['_metadata'])
                )
        else:
            raise NotPlainError(f'a {kind.__name__}')
        self._open.remove(place)
        return result

    def _versions(self, metadata: Any) -> Any:
        """Return the versions of modules: names and plain numbers."""
        if id(metadata) in self._versioned:
            return self._versioned[id(metadata)][1]
        if type(metadata) not in (dict, OrderedDict):
            raise NotPlainError(f'{_name_of(metadata)} as _metadata')
        versions: OrderedDict[str, Any] = OrderedDict()
        for name, version in metadata.items():
            if type(name) is not str or type(version) is not dict:
                raise NotPlainError('other _metadata than versions')
            for key, number in version.items():
                if type(key) is not str or type(number) not in _SIMPLE:
                    raise NotPlainError('other _metadata than versions')
            self._count += len(version) + 1
            versions[name] = dict(version)
        self._versioned[id(metadata)] = metadata, versions
        return versions


_SIMPLE = (type(None), bool, int, float, str)
