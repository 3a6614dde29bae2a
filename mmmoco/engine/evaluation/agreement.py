"""What a network still sees as it did at its start: needs no labels."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from mmmoco.functional import nearest
from mmmoco.registry import EVALUATIONS

from .evaluation import Evaluation, Measurement
from .features import extract
from .splits import Splits


@EVALUATIONS.register_module()
@dataclass(frozen=True)
class NeighbourAgreement(Evaluation):
    """The share of each image's k nearest neighbours that it had at first.

    The images are those of the bank; 100 % is the network of the first
    measurement, and k images by chance are 100 · k / bank. A network that
    learns moves away from it, too: the figure tells a change from a ruin, not
    which of two networks is better.

    Attributes:
        k: Neighbours of an image.
    """

    task = 'agreement'
    title = 'Neighbours as at the start'
    ranks: ClassVar[bool] = False

    k: int = 20
    #: Samples, and the neighbours of each, at the first measurement.
    _start: dict[str, Any] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ValueError(f'NeighbourAgreement(k={self.k}): at least 1.')

    def check(self, data: Splits) -> None:
        """See that the bank holds k others of each image.

        Raises:
            ValueError: If not.
        """
        size = len(data.bank.sampler)  # type: ignore[arg-type]
        if self.k >= size:
            raise ValueError(
                f'NeighbourAgreement(k={self.k}): the bank holds {size} '
                'images only.'
            )

    def describe(self, data: Splits) -> dict[str, Any]:
        """Return what the figure depends on."""
        images = len(self._start.get('samples', ()))
        counted = dict(bank=images, queries=images)
        return {'k': self.k, **data.describe(), **counted}

    def remembered(self) -> dict[str, Any]:
        """The neighbours at the start."""
        return self._start

    def recall(self, remembered: Any) -> None:
        """Take them from a checkpoint.

        Raises:
            ValueError: If they are others than this evaluation's.
        """
        found = dict(remembered) if isinstance(remembered, dict) else {}
        samples, near = found.get('samples'), found.get('neighbours')
        if not (
            isinstance(samples, Tensor)
            and isinstance(near, Tensor)
            and samples.dtype == near.dtype == torch.int32
            and near.shape == (*samples.shape, self.k)
        ):
            raise ValueError(
                f'NeighbourAgreement(k={self.k}): the checkpoint holds no '
                'such neighbours of its start; take the k of its run.'
            )
        self._start.update(samples=samples, neighbours=near)

    def measure(self, model: Any, data: Splits) -> list[Measurement]:
        """Compare the neighbours with those of the first time."""
        found = extract(model, data.bank, data.features, labelled=False)
        samples, near = found.ids.int().cpu(), self._neighbours(found, data)
        first = self._start.setdefault('samples', samples)
        before = self._start.setdefault('neighbours', near)
        # Both ascend; a file may be unreadable for once.
        near = near[torch.isin(samples, first)]
        before = before[torch.isin(first, samples)]
        kept = (near[:, :, None] == before[:, None, :]).any(2)
        share = 100 * float(kept.float().mean())
        return [Measurement({'kept': share}, title=self.title)]

    def _neighbours(self, found: Any, data: Splits) -> Tensor:
        """Return N×k samples, the image itself left out."""
        near = nearest(
            found.values,
            found.values,
            self.k + 1,
            ids=found.ids,
            backend=data.backend,
        ).indices
        own = near == found.ids[:, None].to(near.device)
        own[~own.any(1), -1] = True  # It is hidden by more copies than k.
        return near[~own].view(-1, self.k).int().cpu()
