# MoCo v3, ViT-B/16, 300 epochs of ImageNet (arXiv 2104.02057, authors' code).
# Hardware: 64 GPUs, 64 images each.
# Time: not published.
# Metric: 76.7 % linear top-1 (published by the authors; 76.5 in the paper).
_base_ = [
    '_base_/models/mocov3_vit.py',
    '_base_/views/mocov3.py',
    '_base_/datasets/image_folder.py',
    '_base_/schedules/mocov3_adamw_300e.py',
    '_base_/default_runtime.py',
]

crop = dict(type='FastRandomResizedCrop', size=224, scale=(0.08, 1.0))
views = dict(view_1=[crop, *_base_.view_1], view_2=[crop, *_base_.view_2])
pipeline = [dict(type='LoadRGB'), dict(type='Views', views=views)]
train_dataloader = dict(batch_size=64, dataset=dict(pipeline=pipeline))
