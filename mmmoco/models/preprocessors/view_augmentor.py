from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from mmmoco.functional import (
    ShufflePlan,
    generator,
    send,
    shuffle,
    shuffle_plan,
)
from mmmoco.registry import BATCH_AUGMENTS, MODELS


@MODELS.register_module()
class ViewAugmentor(BaseDataPreprocessor):
    """Make the views on the device: batch operations, then normalisation.

    Takes ``{'inputs': {view: uint8 N×C×H×W}, 'ids': N, …}`` and returns the
    same with float32 views, ready for the encoders; other entries pass.

    For ShuffleBN over several processes the algorithm names the views that
    are encoded as keys only. Their images are exchanged here while they are
    still bytes, before the operations, and the plan that leads the keys back
    is returned as ``'shuffle_plan'``.

    Args:
        mean: Per channel, in grey levels 0 … 255, RGB.
        std: Per channel, in the same unit.
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
        #: Set to a dict to have what each view's operations draw noted.
        self.drawn: dict[str, list[tuple[str, dict[str, Tensor]]]] | None
        self.drawn = None
        #: Views whose images are exchanged (ShuffleBN); set by the algorithm.
        self.shuffled_views: Sequence[str] = ()
        self.set_address(seed=0, step=0, rank=0)

    mean: Tensor
    std: Tensor

    def set_address(self, seed: int, step: int, rank: int) -> None:
        """Say where in the run the next batch stands (for its draws)."""
        self._address = (seed, step, rank)

    def forward(
        self, data: Mapping[str, Any], training: bool = False
    ) -> dict[str, Any]:
        """Copy a batch to the device and make its views, in float32.

        mmengine calls a preprocessor under the model's autocast, which would
        round what blur and crop return. Subclasses extend :meth:`make`, so
        that none of them leaves this out.

        Args:
            data: A collated batch.
            training: Make the views; otherwise only normalise.
        """
        with torch.autocast(self.mean.device.type, enabled=False):
            return self.make(data, training)

    def make(self, data: Mapping[str, Any], training: bool) -> dict[str, Any]:
        """Do it.

        Args:
            data: A collated batch.
            training: Make the views; otherwise only normalise.

        Raises:
            KeyError: If the source of a view is not in the batch.
        """
        batch: dict[str, Any] = self.cast_data(dict(data))
        views: dict[str, Tensor] = batch['inputs']
        if training:
            views = self._choose(views)
            if self.shuffled_views:
                batch['shuffle_plan'] = self._exchange(views)
            views = views | self._operate(views)
        batch['inputs'] = {
            name: self.normalise(x) for name, x in views.items()
        }
        return batch

    def _choose(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the image of every view, still without operations."""
        chosen = {}
        for name, (source, _) in self.views.items():
            if source not in inputs:
                raise KeyError(
                    f'data_preprocessor.views.{name} is made from {source!r}, '
                    f'but the batch holds {sorted(inputs)}.'
                )
            chosen[name] = inputs[source]
        sources = {source for source, _ in self.views.values()}
        ready = {n: x for n, x in inputs.items() if n not in sources}
        return ready | chosen

    def _exchange(self, views: dict[str, Tensor]) -> ShufflePlan:
        """Replace views by what this process is to encode of all processes."""
        seed, step, _ = self._address
        image = next(iter(views.values()))
        plan = shuffle_plan(len(image), seed, step, image.device)
        for name in self.shuffled_views:
            views[name] = shuffle(views[name], plan)
        return plan

    def _operate(self, views: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Make the views, with the parameters of all in one copy."""
        ready: dict[tuple[str, int, str], Any] = {}
        for name, (_, ops) in self.views.items():
            draws = generator(*self._address, name)
            shape = views[name].shape
            for place, op in enumerate(ops):
                drawn = op.draw(shape[0], draws)
                for key, value in op.prepare(drawn, shape).items():
                    ready[name, place, key] = value
                shape = op.shape_after(shape)
                if self.drawn is not None:
                    steps = self.drawn.setdefault(name, [])
                    steps.append((type(op).__name__, drawn))
        ready = send(ready, self.mean.device)
        made = {}
        for name, (_, ops) in self.views.items():
            # The operations write into it.
            x = views[name].to(torch.float32, copy=True)
            for place, op in enumerate(ops):
                own = {
                    k[2]: v for k, v in ready.items() if k[:2] == (name, place)
                }
                x = op.act(x, **own)
            made[name] = x
        return made

    def normalise(self, x: Tensor) -> Tensor:
        """Return (x − mean) / std in float32, with the mean's channels."""
        if x.shape[1] != self.mean.shape[1]:
            raise ValueError(
                f'Images have {x.shape[1]} channels, but data_preprocessor '
                f'has {self.mean.shape[1]} values of mean and std: give as '
                'many, as model.backbone.in_channels. LoadRGB gives 3 of any '
                'file, LoadBands those that the file has.'
            )
        return (x.float() - self.mean).div_(self.std)
