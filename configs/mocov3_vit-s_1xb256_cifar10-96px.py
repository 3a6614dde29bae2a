# MoCo v3 with a queue, ViT-S/16, CIFAR-10 at 96 pixels: for one small GPU.
# Hardware: one GPU of 16 GB or more.
# Time: not measured.
# Metric: none published.
_base_ = [
    '_base_/models/mocov3_vit.py',
    '_base_/views/mocov3.py',
    '_base_/datasets/cifar10_96px.py',
    '_base_/schedules/adamw_100e.py',
    '_base_/default_runtime.py',
]

model = dict(
    backbone=dict(arch='small', img_size=96),
    neck=dict(norm_cfg=dict(type='BN1d')),
    predictor=dict(norm_cfg=dict(type='BN1d')),
    # The queue is larger than the data set: an image's older keys must not
    # count as its negatives.
    dictionary=dict(
        type='Queue', size=65536, feat_dim=256, exclude_same_image=True
    ),
    m_schedule='constant',
)
crop = dict(type='FastRandomResizedCrop', size=96, scale=(0.08, 1.0))
views = dict(view_1=[crop, *_base_.view_1], view_2=[crop, *_base_.view_2])
pipeline = [dict(type='LoadRGB'), dict(type='Views', views=views)]
train_dataloader = dict(dataset=dict(pipeline=pipeline))
custom_hooks = [*_base_.custom_hooks, dict(type='KNNHook', interval=10)]
