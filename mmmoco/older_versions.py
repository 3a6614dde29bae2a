"""What older versions of Python and torch lack.

Each entry says with which version it can go: when setup.py no longer allows
what is older.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import IO, Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

__all__ = [
    'GradScaler',
    'add_note',
    'autocasts_to',
    'before_loading',
    'clip_by_norm',
    'get_total_norm',
    'gpu_has_bfloat16',
    'sha256_of',
]

try:
    from torch.amp.grad_scaler import GradScaler
except ImportError:  # Until torch 2.3

    class GradScaler(torch.cuda.amp.GradScaler):  # type: ignore[no-redef]
        """The same; the device had a class of its own."""

        def __init__(self, device: str, **kwargs: Any) -> None:
            super().__init__(**kwargs)


def add_note(error: BaseException, text: str) -> None:
    """Note something on an error."""
    # Until Python 3.11 there was no method.
    vars(error).setdefault('__notes__', []).append(text)


def autocasts_to(dtype: torch.dtype, device: str) -> bool:
    """Whether autocast computes on a kind of device in a dtype."""
    # Until torch 2.4 each kind of device had functions of its own.
    if hasattr(torch, 'get_autocast_dtype'):
        return (
            torch.is_autocast_enabled(device)
            and torch.get_autocast_dtype(device) == dtype
        )
    if device == 'cuda':
        enabled = torch.is_autocast_enabled()
        return enabled and torch.get_autocast_gpu_dtype() == dtype
    if device == 'cpu':
        enabled = torch.is_autocast_cpu_enabled()
        return enabled and torch.get_autocast_cpu_dtype() == dtype
    return False


def before_loading(
    module: nn.Module, hook: Callable[..., None]
) -> RemovableHandle:
    """Call a hook before a module, or a part of it, loads its state."""
    # Until torch 2.5 the method was private.
    if hasattr(module, 'register_load_state_dict_pre_hook'):
        return module.register_load_state_dict_pre_hook(hook)
    register = module._register_load_state_dict_pre_hook
    handle: RemovableHandle = register(hook, with_module=True)
    return handle


def clip_by_norm(
    parameters: Sequence[Tensor], most: float, norm: Tensor
) -> None:
    """Scale gradients of a known norm down to at most another."""
    # Until torch 2.6 it stood inside clip_grad_norm_.
    if hasattr(torch.nn.utils, 'clip_grads_with_norm_'):
        torch.nn.utils.clip_grads_with_norm_(parameters, most, norm)
        return
    factor = (most / (norm + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_(
        [p.grad for p in parameters if p.grad is not None], factor
    )


def gpu_has_bfloat16() -> bool:
    """Whether the GPU computes in bfloat16, and does not emulate it."""
    try:
        found = torch.cuda.is_bf16_supported(including_emulation=False)
    except TypeError:  # Until torch 2.4
        return torch.cuda.get_device_capability() >= (8, 0)
    return bool(found)


def get_total_norm(tensors: Sequence[Tensor]) -> Tensor:
    """Return the 2-norm of all tensors taken as one vector."""
    # Until torch 2.6 it stood inside clip_grad_norm_.
    if hasattr(torch.nn.utils, 'get_total_norm'):
        return torch.nn.utils.get_total_norm(tensors)
    if not tensors:
        return torch.tensor(0.0)
    device = tensors[0].device
    norms = [torch.linalg.vector_norm(t).to(device) for t in tensors]
    return torch.linalg.vector_norm(torch.stack(norms))


def sha256_of(file: IO[bytes]) -> str:
    """Return the digest of a file's content, in hexadecimal."""
    # Until Python 3.11 there was no hashlib.file_digest.
    digest = hashlib.sha256()
    while block := file.read(1 << 18):
        digest.update(block)
    return digest.hexdigest()
