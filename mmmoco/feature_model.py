"""What OpenMMLab asks of a model: one way in, for losses or for features."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from mmengine.model import BaseModel
from torch import Tensor

from mmmoco.functional import ShufflePlan
from mmmoco.registry import MODELS


class FeatureModel(BaseModel):
    """A model that returns features by stage, and losses in training.

    Args:
        data_preprocessor: Config of the preprocessor.
        channels_last: Use the channels_last memory format.
        init_cfg: Initialisation, as everywhere in OpenMMLab.
    """

    def __init__(
        self,
        data_preprocessor: Any = None,
        channels_last: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        if data_preprocessor is not None:
            # In our registry, whatever the default scope is.
            data_preprocessor = MODELS.build(data_preprocessor)
        super().__init__(data_preprocessor, init_cfg)
        self.channels_last = channels_last
        #: Turns images and a number of channels into pixels N×C×H×W;
        #: ``get_model`` sets it by the config.
        self.read_images: Callable[[Any, int], Tensor] | None = None

    def encoders(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """What :meth:`extract_feat` can return, by the name of the stage.

        ``'backbone'``: its last output, averaged over the pixels, or the
        class token; ``'neck'``: the L2-normalised projection; ``'teacher'``.
        """
        raise NotImplementedError

    def extract_feat(self, x: Any, stage: str = 'backbone') -> Tensor:
        """Return features N×C.

        Args:
            x: Normalised images N×C×H×W. If ``get_model`` built the model
                also a path, a PIL image, an array H×W×C of uint8, or a list
                of these: they are read, resized, cropped and normalised as
                in the evaluations of the model's config, and the features
                have no gradients.
            stage: One of :meth:`encoders`.

        Raises:
            OSError: If a file cannot be read.
            TypeError: If ``x`` is nothing of this.
            ValueError: If shapes do not fit, or there is no such stage.
        """
        encoders = self.encoders()
        if stage not in encoders:
            raise ValueError(
                f'stage={stage!r} is unknown; use '
                f'{" or ".join(map(repr, encoders))}.'
            )
        if not isinstance(x, Tensor) or not x.is_floating_point():
            with torch.no_grad():
                x = self._normalised(x)
                return encoders[stage](self.in_layout(x))
        if x.dim() != 4:
            raise ValueError(
                f'Images of shape {tuple(x.shape)}: give N×C×H×W (of a single '
                'one x[None]).'
            )
        return encoders[stage](self.in_layout(x))

    def _normalised(self, images: Any) -> Tensor:
        """Return images as the network takes them, on its device."""
        mean = getattr(self.data_preprocessor, 'mean', None)
        if self.read_images is None or mean is None:
            raise TypeError(
                f'{type(images).__name__}: this model does not know how '
                'images are read for it, and takes normalised ones N×C×H×W '
                'in floating point; one of mmmoco.get_model() also takes '
                'paths and PIL images.'
            )
        pixels = self.read_images(images, mean.shape[1])
        batch = self.data_preprocessor({'inputs': {'image': pixels}})
        normalised: Tensor = batch['inputs']['image']
        return normalised

    def in_layout(self, x: Tensor) -> Tensor:
        """Return images in the memory format that the weights have."""
        if self.channels_last and x.dim() == 4:
            return x.contiguous(memory_format=torch.channels_last)
        return x

    def forward(
        self,
        inputs: Mapping[str, Tensor] | Tensor,
        ids: Tensor | None = None,
        mode: str = 'tensor',
        shuffle_plan: ShufflePlan | None = None,
        groups: Tensor | None = None,
        **_: Any,
    ) -> Any:
        """Dispatch as OpenMMLab's models do.

        Args:
            inputs: Views by name, each N×C×H×W; for features also a tensor.
            ids: N sample ids, −1 where unknown.
            mode: ``'loss'`` for training, ``'tensor'`` for features.
            shuffle_plan: By which the preprocessor exchanged key images.
            groups: N numbers of the images' groups, −1 where there is none;
                they reach the loss if a dictionary excludes groups.
        """
        if mode == 'tensor':
            x = inputs if isinstance(inputs, Tensor) else only_view(inputs)
            return self.extract_feat(x)
        if mode != 'loss':
            raise ValueError(
                f"mode={mode!r}: a pre-training model has 'loss' and "
                "'tensor'; evaluate it with mmmoco knn."
            )
        assert isinstance(inputs, Mapping)
        views = {name: self.in_layout(x) for name, x in inputs.items()}
        first = next(iter(views.values()))
        if ids is None:
            ids = torch.full((len(first),), -1)
        if self.training:
            self.before_loss()
        told: dict[str, Any] = {}
        if shuffle_plan is not None:
            told['shuffle_plan'] = shuffle_plan
        if groups is not None and self.wants_groups:
            told['groups'] = groups.to(first.device)
        return self.loss(views, ids.to(first.device), **told)

    @property
    def wants_groups(self) -> bool:
        """Whether :meth:`loss` takes the images' groups."""
        return False

    def before_loss(self) -> None:
        """See, in every training forward, that the run can train the model."""

    def loss(
        self, inputs: Mapping[str, Tensor], ids: Tensor
    ) -> dict[str, Tensor]:
        """Return the losses, and statistics for the log; write no state.

        Args:
            inputs: Normalised views by name, each N×C×H×W.
            ids: N sample ids, −1 where unknown.
        """
        raise NotImplementedError


def only_view(inputs: Mapping[str, Tensor]) -> Tensor:
    """Return the one image of a batch that features are taken of.

    Raises:
        ValueError: If there are several and none is called ``image``.
    """
    if len(inputs) == 1:
        return next(iter(inputs.values()))
    if 'image' in inputs:
        return inputs['image']
    raise ValueError(
        f'Features are taken of one image, but the batch holds '
        f"{sorted(inputs)}: name one of them 'image'."
    )
