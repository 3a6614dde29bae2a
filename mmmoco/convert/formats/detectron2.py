"""ResNets in Detectron2's names, as its pickles of backbones hold them."""

from ..format import CLASSIFIER, Format
from ..key_table import Part
from ..resnet import DETECTRON2

FORMATS = (
    Format(
        name='detectron2',
        title='a ResNet with the names of Detectron2',
        published=False,  # Both of its styles are in use.
        signs=(r'stem\.conv1\.', r'res2\.0\.'),
        parts=(Part('', 'backbone.', DETECTRON2),),
        left=((r'(stem\.)?fc\.', CLASSIFIER),),
    ),
)
