# MoCo v1, ResNet-50, 200 epochs of ImageNet (arXiv 1911.05722, section 4.1).
# Hardware: 8 GPUs of 8 GB or more, 32 images each.
# Time: 53 h on 8 V100 (published by the authors; not measured here).
# Metric: 60.6 % linear top-1 (published by the authors; 60.8 +- 0.2, 5 runs).
_base_ = [
    '_base_/models/mocov1_r50.py',
    '_base_/views/mocov1.py',
    '_base_/datasets/image_folder.py',
    '_base_/schedules/mocov1_200e.py',
    '_base_/default_runtime.py',
]

pipeline = [dict(type='LoadRGB'), dict(type='Views', views=_base_.views)]
train_dataloader = dict(dataset=dict(pipeline=pipeline))
