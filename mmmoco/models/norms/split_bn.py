from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from mmmoco.registry import MODELS


@MODELS.register_module()
class SplitBN(_BatchNorm):
    """BatchNorm over parts of the batch: several GPUs' BatchNorm on one.

    In training, sample i is normalised with the samples of its split, which
    is i modulo ``num_splits``; the running statistics take the mean over the
    splits. In evaluation, and in its state dict, it is BatchNorm2d.

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
        output, mean, var = self._normalise_splits(input)
        if self.track_running_stats:
            self._update_running_stats(mean, var)
        return output

    def _normalise_splits(
        self, input: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the output, and mean and unbiased variance, splits · C."""
        n, channels = input.shape[:2]
        splits = self.num_splits
        # Rows i, i + splits, … become one row of splits · C channels.
        joint = input.reshape(n // splits, splits * channels, *input.shape[2:])
        mean = joint.new_zeros(splits * channels, dtype=torch.float32)
        var = torch.zeros_like(mean)

        def repeat(t: Tensor | None) -> Tensor | None:
            return None if t is None else t.repeat(splits)

        # With momentum 1 the "running" statistics are those of this batch.
        output = F.batch_norm(
            joint,
            mean,
            var,
            repeat(self.weight),
            repeat(self.bias),
            training=True,
            momentum=1.0,
            eps=self.eps,
        )
        return output.reshape(input.shape), mean, var

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
        splits = self.num_splits
        self.running_mean.lerp_(mean.view(splits, -1).mean(0), momentum)
        self.running_var.lerp_(var.view(splits, -1).mean(0), momentum)

    def extra_repr(self) -> str:
        """Shown when the model is printed."""
        return f'{super().extra_repr()}, num_splits={self.num_splits}'
