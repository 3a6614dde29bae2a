"""MoCo v3 as saved by the authors (facebookresearch/moco-v3)."""

from ..format import Format
from ..heads import WITH_BATCH_NORM
from ..key_table import Part, twins
from ..resnet import TORCHVISION
from ..vit import TIMM

BACKBONE = TORCHVISION + TIMM

FORMATS = (
    Format(
        name='mocov3',
        title='official MoCo v3',
        signs=(r'base_encoder\.(layer1|blocks)\.',),
        parts=(
            Part('base_encoder.fc.', 'neck.', WITH_BATCH_NORM),
            Part('base_encoder.head.', 'neck.', WITH_BATCH_NORM),
            Part('momentum_encoder.fc.', 'key_encoder.neck.', WITH_BATCH_NORM),
            Part(
                'momentum_encoder.head.', 'key_encoder.neck.', WITH_BATCH_NORM
            ),
            *twins('base_encoder.', 'momentum_encoder.', 'backbone', BACKBONE),
            Part('predictor.', 'predictor.', WITH_BATCH_NORM),
        ),
        imagenet=True,
    ),
)
