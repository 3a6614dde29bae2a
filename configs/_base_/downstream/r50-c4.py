# ResNet-50-C4: layer4 is in the RoI head, from the same file as the backbone,
# and one more norm follows it. mmdet has the Caffe style: MoCo has the stride
# in the 3×3 convolution, and RGB in the statistics of ImageNet.
trained = dict(
    style='pytorch',
    norm_cfg=dict(type='SyncBN', requires_grad=True),
    norm_eval=False,
    init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.'),
)
c4 = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    backbone=dict(frozen_stages=-1, **trained),
    roi_head=dict(shared_head=dict(type='ResLayerExtraNorm', **trained)),
)
