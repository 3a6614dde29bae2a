# MoCo v3 on ResNet-50 (arXiv 2104.02057): projector and predictor of two
# layers, no biases, the last BatchNorm of the projector without affine.
model = dict(
    type='MoCoV3',
    backbone=dict(
        type='MoCoV3ResNet',
        depth=50,
        out_indices=(3,),
        norm_cfg=dict(type='SyncBN'),
        zero_init_residual=True,
        stop_grad_conv1=False,
    ),
    neck=dict(
        type='mmpretrain.NonLinearNeck',
        in_channels=None,  # as wide as what the backbone gives
        hid_channels=4096,
        out_channels=256,
        num_layers=2,
        with_bias=False,
        with_last_bias=False,
        with_last_bn_affine=False,
        with_avg_pool=True,
        norm_cfg=dict(type='SyncBN'),
    ),
    predictor=dict(
        type='mmpretrain.NonLinearNeck',
        in_channels=256,
        hid_channels=4096,
        out_channels=256,
        num_layers=2,
        with_bias=False,
        with_last_bias=False,
        with_last_bn=False,
        with_avg_pool=False,
        norm_cfg=dict(type='SyncBN'),
    ),
    dictionary=dict(type='InBatch'),
    loss=dict(type='InfoNCE', temperature=1.0, scale_by_2tau=True),
    m=0.99,
    m_schedule='cosine',
    data_preprocessor=dict(
        type='ViewAugmentor',
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
    ),
)
