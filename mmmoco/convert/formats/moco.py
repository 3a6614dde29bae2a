"""MoCo v1 and v2 as saved by the authors (facebookresearch/moco)."""

from ..format import Format
from ..heads import LINEAR, TWO_LINEAR
from ..key_table import KeyTable, Part, twins
from ..resnet import TORCHVISION

HEAD = LINEAR + TWO_LINEAR
#: C×K, and the next slot.
QUEUE = KeyTable(('queue', 'keys'), ('queue_ptr', 'ptr'))
#: DenseCL's second one, in the code of its authors and in mmpretrain.
DENSE_QUEUE = KeyTable(('queue2', 'keys'), ('queue2_ptr', 'ptr'))

FORMATS = (
    Format(
        name='moco',
        title='official MoCo v1 or v2',
        signs=(r'encoder_q\.layer1\.', r'encoder_q\.fc\.'),
        parts=(
            *twins('encoder_q.fc.', 'encoder_k.fc.', 'neck', HEAD),
            *twins('encoder_q.', 'encoder_k.', 'backbone', TORCHVISION),
            Part('', 'dictionary.', QUEUE),
        ),
        imagenet=True,
    ),
)
