"""Counting the bytes that tensors hold, real ones and fake ones."""

import copy
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten


class LiveBytes(TorchDispatchMode):
    """Follow the storages that operations make, until they are freed.

    Every storage counts once, however many tensors view it, so that what
    autograd keeps, what a caller still holds and what an operation needs for
    a moment are all in the sum, each as long as it lives. What a kernel
    allocates and frees inside is not seen. What existed before is told by
    :meth:`count`, else a view of it would be taken for new.

    Attributes:
        live: Bytes of the storages that are alive.
        peaks: The highest that ``live`` has been, in each phase.
        started: What it was when each phase last began.
    """

    #: Allocators hand out whole blocks; CUDA's are of 512 bytes.
    block = 512

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.peaks: dict[str, int] = {}
        self.started: dict[str, int] = {}
        self._phase = ''
        self._seen: dict[int, weakref.ref[Any]] = {}

    def count(self, tensors: Iterable[Tensor]) -> None:
        """Count tensors that existed before."""
        for tensor in tensors:
            self._add(tensor)

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Any = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run an operation and count what it returns."""
        result = func(*args, **(kwargs or {}))
        leaves, _ = tree_flatten(result)
        self.count(x for x in leaves if isinstance(x, Tensor))
        return result

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._seen:
            return
        size = -(-storage.nbytes() // self.block) * self.block

        def gone(_: Any) -> None:
            del self._seen[key]
            self.live -= size

        self._seen[key] = weakref.ref(storage, gone)
        self.live += size
        self._note()

    def _note(self) -> None:
        highest = self.peaks.get(self._phase, 0)
        self.peaks[self._phase] = max(highest, self.live)

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Name what goes on inside, or while the decorated function runs."""
        outer, self._phase = self._phase, phase
        self.started[phase] = self.live
        self._note()
        try:
            yield
        finally:
            self._phase = outer


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of tensors, a shared storage counted once."""
    storages = [tensor.untyped_storage() for tensor in tensors]
    return sum({id(s): s.nbytes() for s in storages}.values())


def placed(model: nn.Module, device: str) -> Any:
    """Return a copy of a meta model on a device, its values undefined.

    Under ``FakeTensorMode`` this takes no memory. Strides, shared tensors
    and what is frozen stay as they are.
    """

    def real(x: Tensor) -> Tensor:
        fresh = torch.empty_like(x, device=device)
        if isinstance(x, nn.Parameter):
            return nn.Parameter(fresh, x.requires_grad)
        return fresh

    tensors = [*model.parameters(), *model.buffers()]
    made = {id(x): real(x) for x in tensors if x.is_meta}
    return copy.deepcopy(model, made)
