# MoCo v2 on a small network for 16-pixel scenes, made for two CPU cores: the
# views are made for the whole batch at once.
view = [
    dict(type='BatchRandomResizedCrop', size=16, scale=(0.6, 1.0)),
    dict(type='BatchBrightnessContrast', brightness=0.4, contrast=0.4),
]
model = dict(
    type='MoCoV2',
    backbone=dict(
        type='PlainConvNet',
        in_channels=1,
        norm_cfg=dict(type='SplitBN', num_splits=4),
    ),
    neck=dict(
        type='mmpretrain.MoCoV2Neck',
        in_channels=None,  # as wide as what the backbone gives
        hid_channels=128,
        out_channels=64,
    ),
    dictionary=dict(type='Queue', size=1024, feat_dim=64),
    loss=dict(type='InfoNCE', temperature=0.1),
    m=0.99,
    channels_last=True,
    data_preprocessor=dict(
        type='ViewAugmentor',
        mean=(127.5,),
        std=(64.0,),
        views=dict(
            view_q=dict(source='image', ops=view),
            view_k=dict(source='image', ops=view),
        ),
    ),
)
