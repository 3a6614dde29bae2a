# FCN R50-D8 on VOC 2012 as in mmselfsup's zoo, but with the stem loaded too.
# Hardware: 4 GPUs of 11 GB.
# Time: not measured.
# Metric: 67.55 mIoU for MoCo v2 (mmselfsup: ResNetV1c, whose stem was random).
_base_ = [
    '../../../_base_/downstream/segmentation_runtime.py',
    *__import__('mmmoco.apis', fromlist=['_']).package_bases(
        'mmseg::fcn/fcn_r50-d8_4xb4-20k_voc12aug-512x512.py'
    ),
]
model = dict(
    pretrained=None,
    backbone=dict(
        type='ResNet',
        frozen_stages=-1,
        init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.'),
    ),
)
