from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from mmmoco.registry import MODELS


@MODELS.register_module()
class SplitBN(_BatchNorm):
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
        means, variances, outputs = [], [], []
        for part in input.chunk(splits):
            mean = part.new_zeros(self.num_features, dtype=torch.float32)
            var = torch.zeros_like(mean)
            # With momentum 1 the "running" statistics are the part's own.
            outputs.append(
                F.batch_norm(
                    part,
                    mean,
                    var,
                    self.weight,
                    self.bias,
                    training=True,
                    momentum=1.0,
                    eps=self.eps,
                )
            )
            means.append(mean)
            variances.append(var)
        if self.track_running_stats:
            self._update_running_stats(means, variances)
        return torch.cat(outputs)

    @torch.no_grad()
    def _update_running_stats(
        self, means: list[Tensor], variances: list[Tensor]
    ) -> None:
        assert self.num_batches_tracked is not None
        assert self.running_mean is not None and self.running_var is not None
        self.num_batches_tracked.add_(1)
        momentum = (
            1.0 / float(self.num_batches_tracked)
            if self.momentum is None
            else self.momentum
        )
        self.running_mean.lerp_(torch.stack(means).mean(0), momentum)
        self.running_var.lerp_(torch.stack(variances).mean(0), momentum)

    def extra_repr(self) -> str:
        """Shown when the model is printed."""
        return f'{super().extra_repr()}, num_splits={self.num_splits}'
