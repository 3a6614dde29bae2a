"""Counting the bytes that tensors hold, real ones and fake ones."""

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class LiveBytes(TorchDispatchMode):
    """Follow the storages that operations make, until they are freed.

    Every storage counts once, however many tensors view it, so that what
    autograd keeps, what a caller still holds and what an operation needs for
    a moment are all in the sum, each as long as it lives. What a kernel
    allocates and frees inside is not seen. What existed before is told by
    :meth:`count`, else a view of it would be taken for new.

    Attributes:
        live: Bytes of the storages that are alive.
        peak: The highest that ``live`` has been since :meth:`reset_peak`.
        peak_phase: Value of ``phase`` then.
        phase: What is going on; set by the caller.
    """

    #: Allocators hand out whole blocks; CUDA's are of 512 bytes.
    block = 512

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.phase = ''
        self.peaks: dict[str, int] = {}
        self._seen: dict[int, weakref.ref[Any]] = {}
        self.reset_peak()

    def reset_peak(self) -> None:
        """Forget the peaks so far."""
        self.peak, self.peak_phase = self.live, self.phase
        self.peaks = {self.phase: self.live}

    def count(self, tensors: Iterable[Tensor]) -> int:
        """Count tensors that existed before; return their bytes."""
        before = self.live
        for tensor in tensors:
            self._add(tensor)
        return self.live - before

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Any = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run an operation and count what it returns."""
        result = func(*args, **(kwargs or {}))
        for value in tree_iter(result):
            if isinstance(value, Tensor):
                self._add(value)
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
        self.peaks[self.phase] = max(self.peaks.get(self.phase, 0), self.live)
        if self.live > self.peak:
            self.peak, self.peak_phase = self.live, self.phase

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Name what goes on inside."""
        before, self.phase = self.phase, phase
        self.peaks[phase] = max(self.peaks.get(phase, 0), self.live)
        try:
            yield
        finally:
            self.phase = before


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of tensors, a shared storage counted once."""
    storages = {}
    for tensor in tensors:
        storage = tensor.untyped_storage()
        storages[id(storage)] = storage
    return sum(storage.nbytes() for storage in storages.values())


def materialise(model: nn.Module, device: str) -> None:
    """Give the tensors of a meta model to ``device``, values undefined.

    Under ``FakeTensorMode`` this takes no memory. Strides, shared tensors
    and what is frozen stay as they are.
    """
    made: dict[int, Tensor] = {}

    def real(tensor: Tensor) -> Tensor:
        if id(tensor) not in made:
            fresh: Tensor = torch.empty_strided(
                tensor.shape,
                tensor.stride(),
                dtype=tensor.dtype,
                device=device,
            )
            if isinstance(tensor, nn.Parameter):
                fresh = nn.Parameter(fresh, tensor.requires_grad)
            made[id(tensor)] = fresh
        return made[id(tensor)]

    # All are kept until the end, so that no id is used again.
    tensors = [*model.parameters(), *model.buffers()]
    for module in model.modules():
        slots: tuple[dict[str, Any], ...] = module._parameters, module._buffers
        for slot in slots:
            for name, tensor in slot.items():
                if tensor is not None and tensor.is_meta:
                    slot[name] = real(tensor)
    del tensors
    preprocessor = getattr(model, 'data_preprocessor', None)
    if preprocessor is not None:
        preprocessor._device = torch.device(device)
