# DenseCL, ResNet-50, 200 epochs of ImageNet (arXiv 2011.09157, authors' code).
# Hardware: 8 GPUs of 8 GB or more, 32 images each.
# Time: 55 h on 8 V100 (published by the authors; not measured here).
# Metric: 58.7 AP on VOC07+12, detection; 69.4 mIoU on VOC 2012 (published).
_base_ = [
    '_base_/models/densecl_r50.py',
    '_base_/views/mocov2.py',
    '_base_/datasets/image_folder.py',
    '_base_/schedules/mocov2_200e.py',
    '_base_/default_runtime.py',
]

pipeline = [dict(type='LoadRGB'), dict(type='Views', views=_base_.views)]
train_dataloader = dict(dataset=dict(pipeline=pipeline))
