from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmmoco.private_names import BatchNorm
from mmmoco.registry import MODELS


@MODELS.register_module()
class SplitBN(BatchNorm):
    """BatchNorm over parts of the batch: several GPUs' BatchNorm on one.

    In training the batch is cut into ``num_splits`` consecutive parts, each
    normalised by itself; the running statistics take the mean over them. In
    evaluation, and in its state dict, it is BatchNorm2d.

    The idea is that of the CIFAR-10 demo of MoCo's authors.

    Args:
        num_features: Channels C.
        num_splits: Into how many parts the batch is split; must divide it.
        **kwargs: As for ``torch.nn.BatchNorm2d``.
    """

    _abbr_ = 'bn'

    def __init__(
        self, num_features: int, num_splits: int = 8, **kwargs: Any
    ) -> None:
        super().__init__(num_features, **kwargs)
        if num_splits < 1:
            raise ValueError(
                f'SplitBN(num_splits={num_splits}): must be at least 1.'
            )
        self.num_splits = num_splits

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() not in (2, 4):
            raise ValueError(
                f'SplitBN expects N×C or N×C×H×W, got {tuple(input.shape)}.'
            )

    def forward(self, input: Tensor) -> Tensor:
        """Normalise N×C or N×C×H×W."""
        splits = self.num_splits
        if splits == 1 or not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        if len(input) % splits:
            raise ValueError(
                f'A batch of {len(input)} cannot be split into {splits} '
                'equal parts for SplitBN: choose a batch size that is a '
                'multiple of num_splits, or set drop_last=True.'
            )
        # Means and variances of the parts.
        shape = 2, splits, self.num_features
        statistics = input.new_zeros(shape, dtype=torch.float32)
        # A CPU has no launches to save, and would copy for nothing.
        if input.device.type == 'cpu':
            output = self._part_by_part(input, statistics)
        else:
            output = self._all_parts_at_once(input, statistics)
        if self.track_running_stats:
            self._update_running_stats(*statistics.mean(1))
        return output

    def _part_by_part(self, x: Tensor, statistics: Tensor) -> Tensor:
        """Return the output, and fill in the parts' statistics, 2×S×C."""
        outputs = [
            self._normalise(part, of_part, self.weight, self.bias)
            for part, of_part in zip(
                x.chunk(self.num_splits), statistics.unbind(1), strict=True
            )
        ]
        return torch.cat(outputs)

    def _all_parts_at_once(self, x: Tensor, statistics: Tensor) -> Tensor:
        """Do the same by one normalisation of N/S×(S·C)×H×W.

        The channels of the parts stand beside each other. The images are
        copied there and back, in runs of C·H·W values (of C, where the memory
        format is channels_last, which the output keeps).
        """
        splits, width = self.num_splits, self.num_features
        last = x.dim() == 4 and not x.is_contiguous()
        rows = x.permute(0, 2, 3, 1) if last else x
        parts = rows.unflatten(0, (splits, -1))  # S×N/S×…
        if last:
            side = parts.movedim(0, -2).flatten(-2)  # N/S×H×W×(S·C)
            side = side.permute(0, 3, 1, 2)
        else:
            side = parts.transpose(0, 1).flatten(1, 2)
        weight, bias = self.weight, self.bias
        if self.affine:
            weight, bias = _Repeated.apply(weight, bias, splits)
        side = self._normalise(side, statistics.flatten(1), weight, bias)
        if last:
            parts = side.permute(0, 2, 3, 1).unflatten(-1, (splits, width))
            rows = parts.movedim(-2, 0).flatten(0, 1)
            return rows.permute(0, 3, 1, 2)
        parts = side.unflatten(1, (splits, width))
        return parts.transpose(0, 1).flatten(0, 1)

    def _normalise(
        self,
        x: Tensor,
        statistics: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
    ) -> Tensor:
        # With momentum 1 the "running" statistics are the batch's own.
        mean, var = statistics
        return F.batch_norm(
            x, mean, var, weight, bias, True, momentum=1.0, eps=self.eps
        )

    @torch.no_grad()
    def _update_running_stats(self, mean: Tensor, var: Tensor) -> None:
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None and self.running_var is not None
        self.num_batches_tracked.add_(1)
        momentum = (
            1.0 / float(self.num_batches_tracked)
            if self.momentum is None
            else self.momentum
        )
        torch._foreach_lerp_(
            [self.running_mean, self.running_var], [mean, var], momentum
        )

    def extra_repr(self) -> str:
        """Shown when the model is printed."""
        return f'{super().extra_repr()}, num_splits={self.num_splits}'


class _Repeated(torch.autograd.Function):
    """Weight and bias, each ``times`` times in a row."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, bias: Tensor, times: int
    ) -> tuple[Tensor, Tensor]:
        ctx.times = times
        both = torch.cat([weight] * times + [bias] * times)
        first, second = both.chunk(2)
        return first, second

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        both = torch.stack(grads).unflatten(1, (ctx.times, -1)).sum(1)
        return *both.unbind(), None
