# MoCo v2 on embedded digit scenes: sees a backbone learn without labels.
# Hardware: two CPU cores.
# Time: about two minutes.
# Metric: weighted k-NN top-1; the README says what was measured.
_base_ = ['../_base_/datasets/digits.py', '../_base_/default_runtime.py']

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
        in_channels=128,
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
optim_wrapper = dict(
    type='ContrastOptimWrapper',
    optimizer=dict(type='SGD', lr=0.03, momentum=0.9, weight_decay=5e-4),
)
param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        T_max=100,
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=100)
auto_scale_lr = dict(base_batch_size=128, enable=False)
default_hooks = dict(logger=dict(interval=33), checkpoint=dict(interval=50))
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='KNNHook', interval=10, initial=True),
]
randomness = dict(seed=0)
