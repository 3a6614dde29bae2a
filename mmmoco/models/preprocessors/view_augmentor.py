from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from mmmoco.functional import generator
from mmmoco.registry import BATCH_AUGMENTS, MODELS


@MODELS.register_module()
class ViewAugmentor(BaseDataPreprocessor):
    """Make the views on the device: batch operations, then normalisation.

    Takes ``{'inputs': {view: uint8 N×C×H×W}, 'ids': N, …}`` and returns the
    same with float32 views, ready for the encoders; other entries pass.

    Args:
        mean: Per channel, in grey levels 0 … 255, RGB.
        std: Likewise.
        views: For each view that is made here, ``dict(source=name of the
            input, ops=[batch operations])``. Views that are not named come
            ready from the workers and are only normalised. Not used outside
            training.
        non_blocking: Copy to the device without waiting.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        views: Mapping[str, dict[str, Any]] | None = None,
        non_blocking: bool = True,
    ) -> None:
        super().__init__(non_blocking=non_blocking)
        if len(mean) != len(std) or min(std) <= 0:
            raise ValueError(
                f'mean={mean} and std={std} need one value per channel each, '
                'and every std above 0.'
            )
        for name, values in (('mean', mean), ('std', std)):
            self.register_buffer(
                name, torch.tensor(values).view(1, -1, 1, 1), persistent=False
            )
        self.views = {
            name: (
                view['source'],
                [BATCH_AUGMENTS.build(op) for op in view['ops']],
            )
            for name, view in (views or {}).items()
        }
        self.set_address(seed=0, step=0, rank=0)

    mean: Tensor
    std: Tensor

    def set_address(self, seed: int, step: int, rank: int) -> None:
        """Say where in the run the next batch stands (for its draws)."""
        self._address = (seed, step, rank)

    def forward(
        self, data: Mapping[str, Any], training: bool = False
    ) -> dict[str, Any]:
        """Copy a batch to the device and make its views.

        Args:
            data: A collated batch.
            training: Make the views; otherwise only normalise.

        Raises:
            KeyError: If the source of a view is not in the batch.
        """
        batch: dict[str, Any] = self.cast_data(dict(data))
        inputs: dict[str, Tensor] = batch['inputs']
        views = inputs
        if training and self.views:
            made = {name: self._make(name, inputs) for name in self.views}
            sources = {source for source, _ in self.views.values()}
            views = made | {
                name: x
                for name, x in inputs.items()
                if name not in made and name not in sources
            }
        batch['inputs'] = {
            name: self.normalise(x) for name, x in views.items()
        }
        return batch

    def _make(self, name: str, inputs: Mapping[str, Tensor]) -> Tensor:
        source, ops = self.views[name]
        if source not in inputs:
            raise KeyError(
                f'data_preprocessor.views.{name} is made from {source!r}, '
                f'but the batch holds {sorted(inputs)}.'
            )
        x = inputs[source].float()
        draws = generator(*self._address, name, device=x.device)
        for op in ops:
            x = op(x, draws)
        return x

    def normalise(self, x: Tensor) -> Tensor:
        """Return (x − mean) / std in float32, with the mean's channels."""
        if x.shape[1] != self.mean.shape[1]:
            raise ValueError(
                f'Images have {x.shape[1]} channels, but data_preprocessor '
                f'has {self.mean.shape[1]} values of mean and std.'
            )
        return (x.float() - self.mean) / self.std
