"""Freezing the first convolution, and seeing that it happened."""

from torch import nn

from mmmoco.messages import log_info
from mmmoco.private_names import Convolution


def freeze_first_conv(module: nn.Module, owner: str) -> nn.Module:
    """Stop the gradient of the first convolution below ``module``.

    MoCo v3 (section 4): a random, fixed patch projection keeps the training
    of a ViT stable. To be called in ``__init__``: a distributed wrapper, made
    before ``init_weights()``, must not wait for these gradients. One that is
    frozen already, as by ``frozen_stages``, is as it should be.

    Args:
        module: Where to look, in the order of registration.
        owner: Name for the log.

    Returns:
        The frozen convolution.

    Raises:
        RuntimeError: If there is no convolution.
    """
    convs = (m for m in module.modules() if isinstance(m, Convolution))
    conv = next(convs, None)
    if conv is None:
        raise RuntimeError(
            f'{owner}: stop_grad_conv1=True, but there is no convolution to '
            f'freeze in {type(module).__name__}. Set stop_grad_conv1=False, '
            'or use a backbone that begins with a convolution.'
        )
    conv.requires_grad_(False)
    log_info(
        f'{owner}: stop_grad_conv1 froze the first convolution, '
        f'{sum(p.numel() for p in conv.parameters())} parameters.'
    )
    return conv
