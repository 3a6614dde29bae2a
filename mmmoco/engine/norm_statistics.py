from torch import Tensor, nn

from mmmoco.private_names import Normalisation


def statistics_of(model: nn.Module) -> list[Tensor]:
    """Return the running statistics of all normalisation layers."""
    return [
        buffer
        for module in model.modules()
        if isinstance(module, Normalisation)
        for buffer in module.buffers(recurse=False)
    ]
