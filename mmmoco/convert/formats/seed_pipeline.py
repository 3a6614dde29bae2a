"""A distillation pipeline that keeps each module as a dictionary of its own.

``encoder_q`` and ``proj_q`` stand at the top of the file, beside optimizer
and scheduler; ``encoder_k``, ``proj_k`` and ``queue`` are taken where a file
has them. The backbone is a ViT of timm or a ResNet of torchvision; the
projection is two linear layers, or those of MoCo v3.
"""

from ..format import Format
from ..heads import TWO_LINEAR, WITH_BATCH_NORM
from ..key_table import Part, twins
from ..resnet import TORCHVISION
from ..vit import TIMM
from .moco import QUEUE

_WITH_BN = r'proj_q\.1\.'

FORMATS = tuple(
    Format(
        name=name,
        title=title,
        signs=(r'encoder_q\.(layer1|blocks)\.', *signs),
        never=never,
        parts=(
            *twins('encoder_q.', 'encoder_k.', 'backbone', TORCHVISION + TIMM),
            *twins('proj_q.', 'proj_k.', 'neck', head),
            Part('predictor.', 'predictor.', WITH_BATCH_NORM),
            Part('', 'dictionary.', QUEUE),
        ),
        left=((r'encoder_[qk]\.(head|fc)\.', 'an unused classifier'),),
    )
    for name, title, signs, never, head in (
        (
            'encoder-proj',
            'encoder_q and proj_q, two linear layers',
            (r'proj_q\.0\.',),
            (_WITH_BN,),
            TWO_LINEAR,
        ),
        (
            'encoder-proj-bn',
            'encoder_q and proj_q with BatchNorm',
            (_WITH_BN,),
            (),
            WITH_BATCH_NORM,
        ),
    )
)
