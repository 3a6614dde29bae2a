"""Networks with timm's names: timm, DeiT, DINO, MAE."""

from ..format import CLASSIFIER, MASK_TOKEN, OTHER_TASK, Format
from ..key_table import Part
from ..resnet import TORCHVISION
from ..vit import TIMM
from .dinov2 import REGISTERS

FORMATS = (
    Format(
        name='timm-vit',
        title='a VisionTransformer of timm (DeiT, DINO, MAE encoder)',
        signs=(r'cls_token', r'blocks\.0\.attn\.qkv\.'),
        never=(r'blocks\.0\.ls1\.', r'decoder_blocks\.', REGISTERS),
        parts=(Part('', 'backbone.', TIMM),),
        left=((r'head\.', CLASSIFIER),),
    ),
    Format(
        name='mae',
        title='MAE with its decoder',
        signs=(r'blocks\.0\.attn\.qkv\.', r'decoder_blocks\.'),
        parts=(Part('', 'backbone.', TIMM),),
        left=(
            (r'(decoder_\w+\.|decoder_pos_embed)', 'the decoder'),
            (r'mask_token', MASK_TOKEN),
        ),
        imagenet=True,
    ),
    Format(
        name='dino',
        title='DINO with student and teacher; the teacher is taken',
        signs=(r'teacher\.(module\.)?backbone\.(blocks|layer1)\.',),
        parts=(
            Part('teacher.backbone.', 'backbone.', TIMM + TORCHVISION),
            Part('teacher.module.backbone.', 'backbone.', TIMM + TORCHVISION),
        ),
        left=(
            (r'teacher\.(module\.)?head\.', OTHER_TASK),
            (r'student\.', 'the student'),
            (r'dino_loss\.', 'the state of its loss'),
        ),
        imagenet=True,
    ),
)
