"""Losses over the corrupted part of an image (MMC, GMML)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def patch_fraction(mask: Tensor, patch_size: int) -> Tensor:
    """Return how much of every patch a pixel mask covers, N×(h·w).

    Args:
        mask: N×1×H×W, True where a pixel is covered.
        patch_size: Side of a patch; divides H and W.
    """
    return F.avg_pool2d(mask.float(), patch_size).flatten(1)


def masked_l1(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Return the mean absolute error over the masked pixels of each image.

    The mean over the images follows, so that the loss of a batch is the mean
    of its parts, however many pixels are masked where. Images without a
    masked pixel count as 0.

    Args:
        prediction: N×C×H×W.
        target: N×C×H×W.
        mask: N×1×H×W, True where the error counts.
    """
    with torch.autocast(prediction.device.type, enabled=False):
        error = (prediction.float() - target.float()).abs().mean(1)  # N×H×W
        return _image_mean(error.flatten(1), mask.flatten(1))


def patch_info_nce(
    student: Tensor, teacher: Tensor, chosen: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """InfoNCE of every patch against the patches of the same image.

    The positive of a student's patch is the teacher's at the same place, its
    negatives are the teacher's other patches of this image.

    Args:
        student: N×P×C, L2-normalised.
        teacher: N×P×C, L2-normalised.
        chosen: N×P, True for the patches that count.
        temperature: τ.

    Returns:
        The mean over the chosen patches of an image, then over images; and
        how often, likewise averaged, the positive is the most similar.
    """
    with torch.autocast(student.device.type, enabled=False):
        similarity = student.float() @ teacher.float().transpose(1, 2)
        log_p = (similarity / temperature).log_softmax(-1)  # N×P×P
        loss = -log_p.diagonal(dim1=1, dim2=2)
        own = similarity.diagonal(dim1=1, dim2=2).unsqueeze(-1)
        found = ((similarity >= own).sum(-1) == 1).float()
        return _image_mean(loss, chosen), _image_mean(found, chosen)


def patch_distance(student: Tensor, teacher: Tensor, chosen: Tensor) -> Tensor:
    """Return 1 − cos to the teacher's patch at the same place.

    Args:
        student: N×P×C, L2-normalised.
        teacher: N×P×C, L2-normalised.
        chosen: N×P, True for the patches that count.
    """
    with torch.autocast(student.device.type, enabled=False):
        distance = 1.0 - (student.float() * teacher.float()).sum(-1)
        return _image_mean(distance, chosen)


def _image_mean(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean over the chosen values of each row, then over the rows."""
    weight = chosen.float()
    rows = (values * weight).sum(1) / weight.sum(1).clamp(min=1.0)
    return rows.mean()
