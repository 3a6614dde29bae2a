from typing import Any

import torch
from mmengine.dist import get_rank, get_world_size
from torch import Tensor

from mmmoco.functional import Candidates, gather, gather_with_grad, same
from mmmoco.registry import MODELS
from mmmoco.two_phase import Dictionary


@MODELS.register_module()
class InBatch(Dictionary):
    """The keys of this step, of all processes; nothing is stored.

    Every query has its own key as positive and those of all other images of
    the step as negatives. Gradient accumulation does not add to them: a
    query sees the keys of its own micro-batch.

    Args:
        key_grad: Let the gradient flow into the keys: the end-to-end
            mechanism (MoCo v1, figure 2a). The query encoder then encodes
            both views, and there is no key encoder. Off for MoCo v3.
        exclude: ``'image'``: images that occur twice in a step are no
            negatives of themselves. ``'group'``: images of the query's group
            are none. None: all others are, as in the papers.
    """

    has_state = False

    def __init__(
        self, key_grad: bool = False, exclude: str | None = None
    ) -> None:
        super().__init__(exclude)
        self.key_grad = key_grad

    def lookup(
        self, k: Tensor, ids: Tensor, groups: Tensor | None = None
    ) -> Candidates:
        """Number the keys over all processes; the own one is positive."""
        keys = gather_with_grad(k) if self.key_grad else gather(k)
        own = torch.arange(len(k), device=k.device) + get_rank() * len(k)
        mask = None
        if self.exclude:
            marks = self.marks(ids, groups)
            mask = same(marks, gather(marks)).scatter_(1, own[:, None], False)
        return Candidates(keys=keys.T, positive_index=own, mask=mask)

    def candidates(self, images: int) -> int:
        """The keys of all images, the query's own among them."""
        return images

    def stage(self, *_: Any, **__: Any) -> None:
        """Nothing is kept."""

    def write(self, *_: Any) -> None:
        """Nothing is kept."""

    def check(self, effective_batch: int, num_samples: int) -> str | None:
        """Refuse a batch without negatives.

        Raises:
            ValueError: If one step holds a single image.
        """
        if effective_batch < 2:
            raise ValueError(
                'InBatch takes the negatives from the batch, but a step of '
                f'{effective_batch} image on {get_world_size()} process has '
                'none: raise train_dataloader.batch_size.'
            )
        return None

    def extra_repr(self) -> str:
        """Shown when the model is printed."""
        return f'key_grad={self.key_grad}, exclude={self.exclude}'
