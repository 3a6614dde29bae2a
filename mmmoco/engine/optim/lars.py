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
            grads = {p: p.grad for p in group['params'] if p.grad is not None}
            if grads:
                self._move(grads, group)
        return loss

    def _move(
        self, grads: dict[Tensor, Tensor], group: dict[str, Any]
    ) -> None:
        """Move all parameters of a group, by few operations on lists."""
        directions = dict(grads)
        scaled = [p for p in grads if p.ndim > 1]
        if scaled:
            decayed = torch._foreach_add(
                [grads[p] for p in scaled], scaled, alpha=group['weight_decay']
            )
            size = torch.stack(torch._foreach_norm(scaled))
            change = torch.stack(torch._foreach_norm(decayed))
            usable = (size > 0) & (change > 0)
            ratio = torch.where(usable, group['trust'] * size / change, 1.0)
            torch._foreach_mul_(decayed, list(ratio.unbind()))
            directions |= dict(zip(scaled, decayed, strict=True))
        for p in grads:
            if 'momentum_buffer' not in self.state[p]:
                self.state[p]['momentum_buffer'] = torch.zeros_like(p)
        buffers = [self.state[p]['momentum_buffer'] for p in grads]
        torch._foreach_mul_(buffers, group['momentum'])
        torch._foreach_add_(buffers, list(directions.values()))
        torch._foreach_add_(list(grads), buffers, alpha=-group['lr'])
