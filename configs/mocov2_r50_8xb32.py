# MoCo v2, ResNet-50, 200 epochs of ImageNet (arXiv 2003.04297, table 1).
# Hardware: 8 GPUs of 8 GB or more, 32 images each.
# Time: 53 h on 8 V100 (published by the authors; not measured here).
# Metric: 67.5 % linear top-1 (published by the authors).
_base_ = [
    '_base_/models/mocov2_r50.py',
    '_base_/views/mocov2.py',
    '_base_/datasets/image_folder.py',
    '_base_/schedules/mocov2_200e.py',
    '_base_/default_runtime.py',
]

pipeline = [dict(type='LoadRGB'), dict(type='Views', views=_base_.views)]
train_dataloader = dict(dataset=dict(pipeline=pipeline))
