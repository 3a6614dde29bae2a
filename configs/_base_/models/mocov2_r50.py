# MoCo v2 on ResNet-50 (arXiv 2003.04297): MLP head, temperature 0.2.
model = dict(
    type='MoCoV2',
    backbone=dict(
        type='mmpretrain.ResNet',
        depth=50,
        out_indices=(3,),
        norm_cfg=dict(type='BN'),
        zero_init_residual=False,
    ),
    neck=dict(
        type='mmpretrain.MoCoV2Neck',
        in_channels=None,  # as wide as what the backbone gives
        hid_channels=2048,
        out_channels=128,
    ),
    dictionary=dict(type='Queue', size=65536, feat_dim=128),
    loss=dict(type='InfoNCE', temperature=0.2),
    m=0.999,
    data_preprocessor=dict(
        type='ViewAugmentor',
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
    ),
)
