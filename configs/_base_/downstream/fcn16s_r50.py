# FCN-16s of MoCo v1 (appendix A.5): the 3×3 convolutions of conv5 have
# dilation 2 and stride 1; two 3×3 convolutions of dilation 6, a classifier,
# nothing else. The paper is silent on dropout (none here) and on the corners
# (aligned, as crops of 16k + 1 pixels suggest).
_base_ = __import__('mmmoco.apis', fromlist=['_']).package_bases(
    'mmseg::_base_/models/fcn_r50-d8.py'
)
model = dict(
    pretrained=None,
    backbone=dict(
        type='ResNet',  # ResNetV1c has another stem
        dilations=(1, 1, 1, 2),
        strides=(1, 2, 2, 1),
        contract_dilation=False,
        frozen_stages=-1,
        init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.'),
    ),
    decode_head=dict(
        channels=256,
        dilation=6,
        concat_input=False,
        dropout_ratio=0.0,
        align_corners=True,
    ),
    auxiliary_head=None,
)
