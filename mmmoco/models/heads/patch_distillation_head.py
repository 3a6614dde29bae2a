from typing import Any

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor

from mmmoco.functional import patch_distance, patch_fraction, patch_info_nce
from mmmoco.registry import MODELS

FORMS = ('contrast', 'cosine')


@MODELS.register_module()
class PatchDistillationHead(BaseModule):
    """Student patch tokens learn the teacher's at the same place (L_PAT).

    The form of this loss in MMC is not known to us; what is here is the
    reading that its abstract suggests, with the temperature of SiT: a patch
    of the corrupted view finds its own place among the patches of the clean
    view of the same image. Every part of that is an option.

    Args:
        projector: Config of an MLP for vectors, such as
            ``mmpretrain.NonLinearNeck`` without pooling.
        patch_size: Side of a patch in pixels.
        form: ``'contrast'``: InfoNCE over the image's patches; ``'cosine'``:
            1 − cos to the patch at the same place, without negatives.
        temperature: τ of the contrast.
        scale_by_2tau: Multiply the contrast by 2τ, as MoCo v3 does.
        min_corrupted: A patch counts from this fraction of corrupted pixels
            on; 0: all patches count.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        projector: dict[str, Any],
        patch_size: int = 16,
        form: str = 'contrast',
        temperature: float = 0.2,
        scale_by_2tau: bool = True,
        min_corrupted: float = 0.5,
    ) -> None:
        super().__init__()
        if form not in FORMS:
            raise ValueError(
                f'heads.pat.form={form!r} is unknown; use one of '
                f'{", ".join(FORMS)}.'
            )
        if not 0.0 < temperature <= 10.0:
            raise ValueError(
                f'heads.pat.temperature={temperature} is outside (0, 10].'
            )
        if not 0.0 <= min_corrupted <= 1.0:
            raise ValueError(
                f'heads.pat.min_corrupted={min_corrupted} is outside [0, 1].'
            )
        self.projector = MODELS.build(projector)
        self.patch_size, self.form = patch_size, form
        self.temperature, self.min_corrupted = temperature, min_corrupted
        self.scale = 2.0 * temperature if scale_by_2tau else 1.0

    def forward(self, patches: Tensor) -> Tensor:
        """Return N×P×C', L2-normalised, of N×P×C patch tokens."""
        n, count = patches.shape[:2]
        projected = self.projector((patches.flatten(0, 1),))[-1]
        return F.normalize(projected.float(), dim=1).view(n, count, -1)

    def loss(
        self, student: Tensor, teacher: Tensor, mask: Tensor
    ) -> dict[str, Tensor]:
        """Return ``loss`` and, for the contrast, ``top1``.

        Args:
            student: N×P×C' projections of the corrupted view.
            teacher: N×P×C' projections of the clean view, no gradient.
            mask: N×1×H×W, True where a pixel is corrupted.
        """
        chosen = patch_fraction(mask, self.patch_size) >= self.min_corrupted
        if self.form == 'cosine':
            return {'loss': patch_distance(student, teacher, chosen)}
        loss, top1 = patch_info_nce(student, teacher, chosen, self.temperature)
        return {'loss': self.scale * loss, 'top1': top1.detach()}
