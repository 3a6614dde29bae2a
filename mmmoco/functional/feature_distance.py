"""How far a student's features are from a teacher's."""

import torch
import torch.nn.functional as F
from torch import Tensor

DISTANCES = ('cosine', 'smooth_l1')


def check_distance(kind: str) -> None:
    """Refuse an unknown distance.

    Args:
        kind: ``'cosine'`` or ``'smooth_l1'``.

    Raises:
        ValueError: If it is neither.
    """
    if kind not in DISTANCES:
        raise ValueError(
            f'The distance {kind!r} is unknown; use one of '
            f'{", ".join(DISTANCES)}.'
        )


def check_weights(cls_weight: float, patch_weight: float) -> None:
    """Refuse weights by which nothing is learnt.

    Args:
        cls_weight: Of the class token's loss.
        patch_weight: Of the patch tokens'.

    Raises:
        ValueError: If one is negative or not finite, or both are zero.
    """
    # Written so that nan is refused, too.
    if not (
        min(cls_weight, patch_weight) >= 0
        and 0 < cls_weight + patch_weight < float('inf')
    ):
        raise ValueError(
            f'cls_weight={cls_weight} and patch_weight={patch_weight} '
            'must be finite, not negative, and not both zero.'
        )


def feature_distance(student: Tensor, teacher: Tensor, kind: str) -> Tensor:
    """Return the mean distance of features, a float32 scalar.

    ``'cosine'`` is 1 − cos: independent of the features' scale, so that the
    terms of class and patch tokens weigh alike. ``'smooth_l1'`` also asks
    for the teacher's norm, and is linear beyond 1, which tames the outliers
    of large transformers.

    Args:
        student: …×C.
        teacher: …×C, without gradient.
        kind: ``'cosine'`` or ``'smooth_l1'``.
    """
    with torch.autocast(student.device.type, enabled=False):
        student, teacher = student.float(), teacher.float()
        if kind == 'smooth_l1':
            return F.smooth_l1_loss(student, teacher)
        return 1.0 - F.cosine_similarity(student, teacher, dim=-1).mean()


def feature_similarity(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean cosine of features, without gradient.

    Args:
        student: …×C.
        teacher: …×C.
    """
    return 1.0 - feature_distance(student.detach(), teacher, 'cosine')
