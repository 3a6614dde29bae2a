# MoCo v3 on a ViT (arXiv 2104.02057): projector of three layers, predictor
# of two, no biases, both end with a BatchNorm without affine.
_base_ = 'mocov3_r50.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='MoCoV3ViT',
        arch='base',
        img_size=224,
        patch_size=16,
        stop_grad_conv1=True,
    ),
    neck=dict(num_layers=3, with_avg_pool=False),
    predictor=dict(with_last_bn=True, with_last_bn_affine=False),
    loss=dict(temperature=0.2),
)
