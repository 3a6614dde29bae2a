"""MoCo as lightly's examples and benchmarks build it.

The memory bank is no part of lightly's state dicts; where a file has one, it
is carried over. In the benchmarks the module called ``backbone`` is the key
encoder.
"""

from ..format import CLASSIFIER, Format
from ..heads import TWO_LINEAR
from ..key_table import KeyTable, Part, twins
from ..resnet import CHILDREN, TORCHVISION
from ..vit import TIMM

BACKBONE = TORCHVISION + CHILDREN + TIMM
#: Of different versions.
KEY_HEADS = 'projection_head_momentum', 'momentum_projection_head'
BANK = KeyTable(
    ('criterion.memory_bank.bank', 'keys'),
    ('criterion.memory_bank.bank_ptr', 'ptr'),
)
LEFT = (
    (r'(online_classifier|criterion)\.', CLASSIFIER),
    (r'(query_|momentum_)?backbone(_momentum)?\.(fc|head)\.', CLASSIFIER),
)

FORMATS = (
    Format(
        name='lightly',
        title='MoCo as in the examples of lightly',
        signs=(r'backbone\.', r'projection_head\.layers\.'),
        never=(r'query_backbone\.',),
        parts=(
            *twins('backbone.', 'backbone_momentum.', 'backbone', BACKBONE),
            Part('momentum_backbone.', 'key_encoder.backbone.', BACKBONE),
            Part('projection_head.layers.', 'neck.', TWO_LINEAR),
            *(
                Part(f'{head}.layers.', 'key_encoder.neck.', TWO_LINEAR)
                for head in KEY_HEADS
            ),
            Part('', 'dictionary.', BANK),
        ),
        left=LEFT,
        imagenet=True,
    ),
    Format(
        name='lightly-benchmark',
        title='MoCo v2 as in the benchmarks of lightly',
        signs=(r'query_backbone\.', r'query_projection_head\.layers\.'),
        parts=(
            *twins('query_backbone.', 'backbone.', 'backbone', BACKBONE),
            Part('query_projection_head.layers.', 'neck.', TWO_LINEAR),
            Part('projection_head.layers.', 'key_encoder.neck.', TWO_LINEAR),
            Part('', 'dictionary.', BANK),
        ),
        left=LEFT,
        imagenet=True,
    ),
)
