# MoCo v3, ResNet-50, 100 epochs of ImageNet (arXiv 2104.02057, authors' code).
# Hardware: 16 GPUs of 32 GB, 256 images each.
# Time: not published.
# Metric: 68.9 % linear top-1 (published by the authors).
_base_ = [
    '_base_/models/mocov3_r50.py',
    '_base_/views/mocov3.py',
    '_base_/datasets/image_folder.py',
    '_base_/schedules/mocov3_lars_100e.py',
    '_base_/default_runtime.py',
]

pipeline = [dict(type='LoadRGB'), dict(type='Views', views=_base_.views)]
train_dataloader = dict(batch_size=256, dataset=dict(pipeline=pipeline))
