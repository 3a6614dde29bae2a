from .mocov3_resnet import MoCoV3ResNet
from .mocov3_vit import MoCoV3ViT
from .plain_conv_net import PlainConvNet
from .timm_backbone import TimmBackbone
