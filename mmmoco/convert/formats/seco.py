"""SeCo and CACo: MoCo v2 with several embedding spaces on one encoder.

Each space has a head and a queue of its own. The first one is invariant to
everything, as MoCo's; the others keep apart seasons or colours.
"""

from ..format import Format
from ..heads import TWO_LINEAR
from ..key_table import Part, twins
from ..resnet import CHILDREN
from .moco import QUEUE

FORMATS = (
    Format(
        name='seco',
        title='SeCo or CACo, an encoder as a row of modules with heads',
        signs=(r'encoder_q\.4\.0\.', r'heads_q\.0\.0\.'),
        parts=(
            *twins('encoder_q.', 'encoder_k.', 'backbone', CHILDREN),
            *twins('heads_q.0.', 'heads_k.0.', 'neck', TWO_LINEAR),
            Part('', 'dictionary.', QUEUE),
        ),
        left=((r'heads_[qk]\.[1-9]\d*\.', 'the heads of other spaces'),),
        queue=0,
        imagenet=True,
    ),
)
