"""The moving average of the query encoder (MoCo v1, equation 2)."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

SCHEDULES = ('constant', 'cosine')


def check_momentum(m: float, schedule: str, allow_any_m: bool = False) -> None:
    """Refuse a momentum that was meant in the other convention.

    Args:
        m: Weight of the old key parameters, as in the papers.
        schedule: ``'constant'`` or ``'cosine'``.
        allow_any_m: Accept everything in [0, 1], for ablations.

    Raises:
        ValueError: If ``m`` or ``schedule`` is out of range.
    """
    if schedule not in SCHEDULES:
        raise ValueError(
            f'm_schedule={schedule!r} is unknown; use one of {SCHEDULES}.'
        )
    low = 0.0 if allow_any_m else 0.5
    if not low <= m <= 1.0:
        raise ValueError(
            f'm={m} is outside [{low:g}, 1]. Here m is the weight of the old '
            'key parameters, as in the papers (key = m * key + (1 - m) * '
            f'query; usual: 0.999). OpenMMLab\'s "momentum" is 1 - m: its '
            f'momentum={m} is m={1 - m:g} here. For an ablation outside the '
            'range set allow_any_m=True (0 <= m <= 1).'
        )


def momentum_at(m: float, schedule: str, progress: float) -> float:
    """Return m at a point of the training.

    Args:
        m: Value at the start.
        schedule: ``'constant'``, or ``'cosine'``: half a cosine from ``m``
            to 1 over the whole training without warm-up (MoCo v3, reference
            implementation).
        progress: Fraction of all iterations done, clipped to [0, 1].
    """
    if schedule == 'constant':
        return m
    progress = min(max(progress, 0.0), 1.0)
    return 1.0 - (1.0 - m) * (1.0 + math.cos(math.pi * progress)) / 2.0


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

    def forward(self, x: Tensor) -> Any:
        """Pass the images through the modules, in their order."""
        for module in self.children():
            x = module(x)
        return x

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
