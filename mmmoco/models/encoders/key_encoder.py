"""The moving average of the query encoder (MoCo v1, equation 2)."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def ema_(keys: Sequence[Tensor], queries: Sequence[Tensor], m: float) -> None:
    """Move every key tensor in place: ``key = m * key + (1 - m) * query``."""
    torch._foreach_lerp_(list(keys), list(queries), 1.0 - m)


class KeyEncoder(nn.Module):
    """The moving average of the query encoder (MoCo v1, section 3.2).

    Holds a frozen copy of every query module under the same name. Only
    parameters are averaged; BatchNorm statistics are the copy's own, and it
    stays in train mode, so that keys are normalised by their own batch.

    Args:
        **modules: The modules of the query encoder, in the order in which
            an input passes them (``backbone=…, neck=…``).
    """

    def __init__(self, **modules: nn.Module) -> None:
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, copy.deepcopy(module))
        # Here and not in init_weights(), which runs after the model was
        # wrapped: DistributedDataParallel must never see these parameters.
        self.requires_grad_(False)
        super().train(True)

    def forward(self, x: Any, every: bool = False) -> Any:
        """Pass the images through the modules, in their order.

        Args:
            x: N×C×H×W.
            every: Return what each of them gives, not only the last.
        """
        outputs = []
        for module in self.children():
            x = module(x)
            outputs.append(x)
        return outputs if every else x

    def train(self, mode: bool = True) -> 'KeyEncoder':
        """Keep train mode, whatever the model around it does."""
        return self

    @torch.no_grad()
    def copy_from(self, queries: Mapping[str, nn.Module]) -> None:
        """Take over parameters and buffers of the query encoder."""
        for name, own in self.named_children():
            own.load_state_dict(queries[name].state_dict())

    def update(self, queries: Mapping[str, nn.Module], m: float) -> None:
        """Move the parameters: key = m · key + (1 − m) · query (eq. 2).

        Args:
            queries: The modules of the query encoder by name.
            m: Weight of the old key parameters.
        """
        own: list[Tensor] = []
        new: list[Tensor] = []
        for name, module in self.named_children():
            own.extend(module.parameters())
            new.extend(queries[name].parameters())
        ema_(own, new, m)
