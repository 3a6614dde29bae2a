from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mmmoco.registry import OPTIMIZERS


@OPTIMIZERS.register_module()
class LARS(torch.optim.Optimizer):
    """SGD whose rate follows, layer by layer, the size of the weights.

    `LARS <https://arxiv.org/abs/1708.03888>`_ as in the recipes of MoCo v3:
    tensors of at most one dimension (biases, BatchNorm) are neither decayed
    nor scaled, whatever their name. Unlike mmpretrain's, it never waits for
    the device, and the learning rate stays outside the momentum buffer.

    Args:
        params: Parameters or groups of them.
        lr: Learning rate.
        momentum: Weight of the buffer.
        weight_decay: L2 penalty.
        trust: The trust coefficient, η in the paper.

    Raises:
        ValueError: If a value is negative.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
    ) -> None:
        defaults = {
            'lr': lr,
            'momentum': momentum,
            'weight_decay': weight_decay,
            'trust': trust,
        }
        for name, value in defaults.items():
            if value < 0:
                raise ValueError(f'LARS({name}={value}) must not be negative.')
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Move the parameters by one step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group['params']:
                if p.grad is not None:
                    self._move(p, p.grad, group)
        return loss

    def _move(self, p: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        direction = grad
        if p.ndim > 1:
            direction = grad.add(p, alpha=group['weight_decay'])
            size, change = p.norm(), direction.norm()
            ratio = group['trust'] * size / change
            usable = (size > 0) & (change > 0)
            direction = direction * torch.where(usable, ratio, 1.0)
        state = self.state[p]
        if 'momentum_buffer' not in state:
            state['momentum_buffer'] = torch.zeros_like(p)
        buffer = state['momentum_buffer']
        buffer.mul_(group['momentum']).add_(direction)
        p.add_(buffer, alpha=-group['lr'])
