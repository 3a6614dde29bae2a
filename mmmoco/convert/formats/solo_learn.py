"""MoCo v2+ and MoCo v3 of solo-learn."""

from ..format import CLASSIFIER, Format
from ..heads import TWO_LINEAR, WITH_BATCH_NORM
from ..key_table import Part, twins
from ..resnet import TORCHVISION
from ..vit import TIMM
from .moco import QUEUE

BACKBONE = TORCHVISION + TIMM
LEFT = ((r'(momentum_)?classifier\.', CLASSIFIER),)

FORMATS = (
    Format(
        name='solo-learn-mocov2plus',
        title='MoCo v2+ of solo-learn',
        signs=(r'backbone\.', r'projector\.0\.', r'queue'),
        parts=(
            *twins('backbone.', 'momentum_backbone.', 'backbone', BACKBONE),
            *twins('projector.', 'momentum_projector.', 'neck', TWO_LINEAR),
            Part('', 'dictionary.', QUEUE),
        ),
        left=LEFT,
        # One for each view; ours answers queries of the first view.
        queue=1,
    ),
    Format(
        name='solo-learn-mocov3',
        title='MoCo v3 of solo-learn',
        signs=(r'backbone\.', r'projector\.0\.', r'predictor\.0\.'),
        never=(r'queue',),
        parts=(
            *twins('backbone.', 'momentum_backbone.', 'backbone', BACKBONE),
            *twins(
                'projector.', 'momentum_projector.', 'neck', WITH_BATCH_NORM
            ),
            Part('predictor.', 'predictor.', WITH_BATCH_NORM),
        ),
        left=LEFT,
    ),
)
