"""MoCo v3 as saved by the authors (facebookresearch/moco-v3)."""

from ..format import Format
from ..heads import WITH_BATCH_NORM as HEAD
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
            *twins('base_encoder.fc.', 'momentum_encoder.fc.', 'neck', HEAD),
            *twins(
                'base_encoder.head.', 'momentum_encoder.head.', 'neck', HEAD
            ),
            *twins('base_encoder.', 'momentum_encoder.', 'backbone', BACKBONE),
            Part('predictor.', 'predictor.', HEAD),
        ),
        imagenet=True,
    ),
)
