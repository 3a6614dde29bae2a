"""MoCo v3 as saved by the authors (facebookresearch/moco-v3)."""

from ..format import Format
from ..heads import WITH_BATCH_NORM
from ..key_table import Part
from ..resnet import TORCHVISION
from ..vit import TIMM

FORMATS = (
    Format(
        name='mocov3',
        title='official MoCo v3',
        signs=(r'base_encoder\.(layer1|blocks)\.',),
        parts=(
            Part('base_encoder.fc.', 'neck.', WITH_BATCH_NORM),
            Part('base_encoder.head.', 'neck.', WITH_BATCH_NORM),
            Part('base_encoder.', 'backbone.', TORCHVISION + TIMM),
            Part('momentum_encoder.fc.', 'key_encoder.neck.', WITH_BATCH_NORM),
            Part(
                'momentum_encoder.head.', 'key_encoder.neck.', WITH_BATCH_NORM
            ),
            Part(
                'momentum_encoder.',
                'key_encoder.backbone.',
                TORCHVISION + TIMM,
            ),
            Part('predictor.', 'predictor.', WITH_BATCH_NORM),
        ),
        imagenet=True,
    ),
)
