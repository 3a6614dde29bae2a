import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner

from mmmoco.registry import HOOKS


@HOOKS.register_module()
class KernelSettingsHook(Hook):
    """Choose how precisely and how adaptively kernels work, and log it.

    Part of ``--fast``. Has an effect on NVIDIA GPUs only.

    Args:
        tf32: Round the inputs of float32 products and convolutions to
            TensorFloat-32 (10 bits of mantissa).
        cudnn_benchmark: Let cuDNN try its algorithms on the first batch of
            every shape.
    """

    priority = 'VERY_HIGH'

    def __init__(
        self, tf32: bool = True, cudnn_benchmark: bool = True
    ) -> None:
        self.tf32, self.cudnn_benchmark = tf32, cudnn_benchmark

    def before_run(self, runner: Runner) -> None:
        """Set the flags of PyTorch."""
        if not torch.cuda.is_available():
            return
        torch.backends.cuda.matmul.allow_tf32 = self.tf32
        torch.backends.cudnn.allow_tf32 = self.tf32
        torch.backends.cudnn.benchmark = self.cudnn_benchmark
        print_log(
            f'Kernels: TF32 {"on" if self.tf32 else "off"}, cuDNN benchmark '
            f'{"on" if self.cudnn_benchmark else "off"}.',
            logger='current',
        )
