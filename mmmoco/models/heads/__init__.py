from .cls_contrast_head import CLSContrastHead
from .patch_distillation_head import PatchDistillationHead
from .reconstruction_head import ReconstructionHead

__all__ = ['CLSContrastHead', 'PatchDistillationHead', 'ReconstructionHead']
