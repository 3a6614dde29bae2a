from typing import Any

import torch
from mmengine.hooks import RuntimeInfoHook
from mmengine.runner import Runner
from torch import Tensor

from mmmoco.registry import HOOKS


@HOOKS.register_module()
class ScalarsHook(RuntimeInfoHook):
    """mmengine's RuntimeInfoHook, which waits for the device only once.

    That one asks for the loss and every statistic of an iteration by itself,
    and the device is idle meanwhile.
    """

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any, outputs: Any
    ) -> None:
        """Give the message hub what the model returned, in one copy."""
        values = dict(outputs or {})
        scalars = {
            name: value.detach().reshape(())
            for name, value in values.items()
            if isinstance(value, Tensor) and value.numel() == 1
        }
        for device in {value.device for value in scalars.values()}:
            there = [n for n, x in scalars.items() if x.device == device]
            numbers = torch.stack([scalars[name] for name in there]).tolist()
            values |= dict(zip(there, numbers, strict=True))
        super().after_train_iter(runner, batch_idx, data_batch, values)
