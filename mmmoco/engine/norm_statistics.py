from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase


def statistics_of(model: nn.Module) -> list[Tensor]:
    """Return the running statistics of all normalisation layers."""
    return [
        buffer
        for module in model.modules()
        if isinstance(module, _NormBase)
        for buffer in module.buffers(recurse=False)
    ]
