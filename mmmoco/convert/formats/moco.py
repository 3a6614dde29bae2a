"""MoCo v1 and v2 as saved by the authors (facebookresearch/moco)."""

from ..format import Format
from ..heads import LINEAR, TWO_LINEAR
from ..key_table import KeyTable, Part
from ..resnet import TORCHVISION

#: C×K, and the next slot.
QUEUE = KeyTable(('queue', 'keys'), ('queue_ptr', 'ptr'))

FORMATS = (
    Format(
        name='moco',
        title='official MoCo v1 or v2',
        signs=(r'encoder_q\.layer1\.', r'encoder_q\.fc\.'),
        parts=(
            Part('encoder_q.fc.', 'neck.', LINEAR + TWO_LINEAR),
            Part('encoder_q.', 'backbone.', TORCHVISION),
            Part('encoder_k.fc.', 'key_encoder.neck.', LINEAR + TWO_LINEAR),
            Part('encoder_k.', 'key_encoder.backbone.', TORCHVISION),
            Part('', 'dictionary.', QUEUE),
        ),
        imagenet=True,
    ),
)
