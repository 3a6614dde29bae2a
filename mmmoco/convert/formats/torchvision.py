"""Bare networks of torchvision; timm's ResNets have the same names."""

from ..format import CLASSIFIER, Format
from ..key_table import Part
from ..resnet import TORCHVISION as RESNET
from ..vit import TORCHVISION as VIT

FORMATS = (
    Format(
        name='resnet',
        title='a ResNet of torchvision or timm',
        signs=(r'conv1\.weight', r'layer1\.0\.'),
        parts=(Part('', 'backbone.', RESNET),),
        left=((r'fc\.', CLASSIFIER),),
        imagenet=True,
    ),
    Format(
        name='torchvision-vit',
        title='a VisionTransformer of torchvision',
        signs=(r'class_token', r'encoder\.layers\.encoder_layer_0\.'),
        parts=(Part('', 'backbone.', VIT),),
        left=((r'heads\.', CLASSIFIER),),
        imagenet=True,
    ),
)
