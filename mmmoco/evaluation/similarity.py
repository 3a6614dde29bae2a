"""Similarities inside objects and between them (arXiv 2308.11448)."""

import torch
import torch.nn.functional as F
from torch import Tensor

#: Bins of the histograms over [−1, 1].
BINS = 200


def patch_objects(
    masks: Tensor, grid: tuple[int, int], background: bool = False
) -> Tensor:
    """Return the object of every patch, −1 where there is none; (h·w).

    A patch belongs to the object that covers more than half of it.

    Args:
        masks: Q×H×W, True on the object.
        grid: Rows and columns of patches.
        background: Count what no object covers as one more object.
    """
    covered = F.adaptive_avg_pool2d(masks.float(), grid).flatten(1)
    share, index = covered.max(0)
    rest = len(masks) if background else -1
    outside = covered.sum(0) < 0.5
    index = torch.where(share > 0.5, index, -1)
    return torch.where(outside, rest, index)


class PairSimilarities:
    """Histograms of the cosines of patch pairs, added up over images.

    Attributes:
        intra: BINS counts: both patches in one object.
        inter: BINS counts: two objects of one image.
    """

    def __init__(self) -> None:
        self.intra, self.inter = torch.zeros(2, BINS, dtype=torch.float64)

    def add(self, tokens: Tensor, objects: Tensor) -> None:
        """Add the pairs of one image.

        Args:
            tokens: C×h×w.
            objects: h·w indices, −1: no object.
        """
        objects = objects.to(tokens.device)
        known = objects >= 0
        own = objects[known]
        unit = F.normalize(tokens.flatten(1)[:, known].float(), dim=0)
        cosine = unit.T @ unit
        upper = torch.ones_like(cosine, dtype=torch.bool).triu(1)
        same = own[:, None] == own[None]
        for counts, where in ((self.intra, same), (self.inter, ~same)):
            level = (cosine[where & upper] + 1.0) * (BINS / 2)
            level = level.long().clamp(0, BINS - 1)
            counts += torch.bincount(level, minlength=BINS).cpu()

    def metrics(self) -> dict[str, float]:
        """Return means, deviations, the overlap coefficient and the AUC.

        The overlap coefficient is the area that both normalised histograms
        share: 1 for equal distributions, 0 for separate ones. The AUC is
        the probability that a pair inside an object is more similar than
        one between objects.

        Raises:
            ValueError: If there is no pair of one kind.
        """
        if not (self.intra.sum() and self.inter.sum()):
            raise ValueError(
                'There are no pairs of patches inside objects, or none '
                'between two objects of an image: use smaller patches, '
                'larger images, or count the background.'
            )
        intra = self.intra / self.intra.sum()
        inter = self.inter / self.inter.sum()
        centre = (torch.arange(BINS, dtype=torch.float64) + 0.5) * 2 / BINS - 1
        result = {}
        for name, p in (('intra', intra), ('inter', inter)):
            mean = (p * centre).sum()
            result[f'{name}_mean'] = float(mean)
            deviation = (p * (centre - mean) ** 2).sum().sqrt()
            result[f'{name}_std'] = float(deviation)
        result['overlap'] = float(torch.minimum(intra, inter).sum())
        below = inter.cumsum(0) - inter
        result['auc'] = float((intra * (below + inter / 2)).sum())
        return result
