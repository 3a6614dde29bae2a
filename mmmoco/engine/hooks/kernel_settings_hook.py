import ctypes
import sys

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmmoco.messages import log_info
from mmmoco.registry import HOOKS

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's malloc.h


@HOOKS.register_module()
class KernelSettingsHook(Hook):
    """Choose how kernels compute and where they get memory, and log it.

    Part of ``--fast``. The first two settings have an effect on NVIDIA GPUs
    only, the last one on CPUs only: the device is that of the model. A run
    that is to be deterministic (``randomness.deterministic=True``) keeps
    PyTorch's settings, of which that is a part.

    Args:
        tf32: Round the inputs of float32 products and convolutions to
            TensorFloat-32 (10 bits of mantissa).
        cudnn_benchmark: Let cuDNN try its algorithms on the first batch of
            every shape.
        keep_memory: Let the process keep the memory it frees, as PyTorch
            does on GPUs. Otherwise glibc returns large blocks to the system
            at once, and every activation is cleared and mapped page by page
            again in the next step. The process settles within some steps, at
            a peak that was 5 to 12 % higher (docs/performance.md).
    """

    priority = 'VERY_HIGH'

    def __init__(
        self,
        tf32: bool = True,
        cudnn_benchmark: bool = True,
        keep_memory: bool = True,
    ) -> None:
        self.tf32, self.cudnn_benchmark = tf32, cudnn_benchmark
        self.keep_memory = keep_memory

    def before_run(self, runner: Runner) -> None:
        """Set the flags of PyTorch, or those of the C library."""
        if next(runner.model.parameters()).device.type == 'cpu':
            kept = self.keep_memory and _keep_freed_memory()
            said = f'freed memory is {"kept" if kept else "returned"}'
        elif torch.are_deterministic_algorithms_enabled():
            said = 'the run is deterministic; TF32 and cuDNN benchmark are '
            said += 'left as they are'
        else:
            # Not by allow_tf32: k-NN asks and sets this one, and PyTorch
            # raises where the two were mixed.
            torch.set_float32_matmul_precision(
                'high' if self.tf32 else 'highest'
            )
            torch.backends.cudnn.allow_tf32 = self.tf32
            torch.backends.cudnn.benchmark = self.cudnn_benchmark
            said = (
                f'TF32 {"on" if self.tf32 else "off"}, cuDNN benchmark '
                f'{"on" if self.cudnn_benchmark else "off"}'
            )
        log_info(f'Kernels: {said}.')


def _keep_freed_memory() -> bool:
    """Tell the allocator to keep what is freed; False if it cannot."""
    linux = sys.platform == 'linux'
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None) if linux else None
    if mallopt is None:  # not glibc
        return False
    return bool(
        mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    )
