# FCN R50-D8 on Cityscapes as in mmselfsup's zoo, but with the stem loaded too.
# Hardware: 4 GPUs of 11 GB.
# Time: not measured.
# Metric: none was published for MoCo.
_base_ = [
    '../../../_base_/downstream/segmentation_runtime.py',
    *__import__('mmmoco.apis', fromlist=['_']).package_bases(
        'mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-769x769.py'
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
