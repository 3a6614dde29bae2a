# MoCo on CIFAR-10, ResNet-18, 200 epochs: the demo of MoCo's authors.
# Hardware: one GPU of 8 GB or more.
# Time: 1.5 h on a V100, 26 s an epoch (published by the authors).
# Metric: 82.6 % k-NN top-1 (published by the authors); 32.0 % after epoch 1.
_base_ = [
    '_base_/models/mocov1_r50.py',
    '_base_/views/cifar10.py',
    '_base_/datasets/cifar10.py',
    '_base_/schedules/mocov2_200e.py',
    '_base_/default_runtime.py',
]

model = dict(
    type='MoCoV2',
    backbone=dict(
        type='mmpretrain.ResNet_CIFAR',
        depth=18,
        norm_cfg=dict(type='SplitBN', num_splits=8),
    ),
    dictionary=dict(size=4096),
    loss=dict(temperature=0.1),
    m=0.99,
    data_preprocessor=dict(
        mean=(125.307, 122.961, 113.8575), std=(51.5865, 50.847, 51.255)
    ),
)
crop = dict(type='FastRandomResizedCrop', size=32)
views = dict(view_q=[crop, *_base_.view_q], view_k=[crop, *_base_.view_k])
pipeline = [dict(type='LoadRGB'), dict(type='Views', views=views)]
train_dataloader = dict(dataset=dict(pipeline=pipeline))
optim_wrapper = dict(optimizer=dict(lr=0.06, weight_decay=5e-4))
param_scheduler = [dict(type='CosineFromOneLR', T_max=200, by_epoch=True)]
auto_scale_lr = dict(base_batch_size=512)
custom_hooks = [*_base_.custom_hooks, dict(type='KNNHook')]
