"""A distillation pipeline that keeps each module as a dictionary of its own.

``encoder_q`` and ``proj_q`` stand at the top of the file, beside optimizer
and scheduler; ``encoder_k``, ``proj_k`` and ``queue`` are taken where a file
has them. The backbone is a ViT of timm or a ResNet of torchvision; the
projection is two linear layers, or those of MoCo v3.
"""

from ..format import Format
from ..heads import TWO_LINEAR, WITH_BATCH_NORM
from ..key_table import KeyTable, Part, twins
from ..resnet import TORCHVISION
from ..vit import TIMM
from .moco import QUEUE

_ENCODER, _WITH_BN = r'encoder_q\.(layer1|blocks)\.', r'proj_q\.1\.'


def _parts(head: KeyTable) -> tuple[Part, ...]:
    return (
        *twins('encoder_q.', 'encoder_k.', 'backbone', TORCHVISION + TIMM),
        *twins('proj_q.', 'proj_k.', 'neck', head),
        Part('predictor.', 'predictor.', WITH_BATCH_NORM),
        Part('', 'dictionary.', QUEUE),
    )


_PLAIN = Format(
    name='encoder-proj',
    title='encoder_q and proj_q, two linear layers',
    signs=(_ENCODER, r'proj_q\.0\.'),
    never=(_WITH_BN,),
    parts=_parts(TWO_LINEAR),
    left=((r'encoder_[qk]\.(head|fc)\.', 'an unused classifier'),),
)

FORMATS = (
    _PLAIN,
    _PLAIN._replace(
        name='encoder-proj-bn',
        title='encoder_q and proj_q with BatchNorm',
        signs=(_ENCODER, _WITH_BN),
        never=(),
        parts=_parts(WITH_BATCH_NORM),
    ),
)
