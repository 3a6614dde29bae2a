# Distillation of DINOv2 ViT-B/14 into a ViT-S/16, CIFAR-10 at 96 pixels.
# Hardware: one GPU of 8 GB or more.
# Time: not measured.
# Metric: none published.
_base_ = [
    '_base_/models/distill_vit-s_dinov2.py',
    '_base_/views/mocov3.py',
    '_base_/datasets/cifar10_96px.py',
    '_base_/schedules/adamw_100e.py',
    '_base_/default_runtime.py',
]

crop = dict(type='FastRandomResizedCrop', size=96, scale=(0.08, 1.0))
views = dict(view=[crop, _base_.flip])
pipeline = [dict(type='LoadRGB'), dict(type='Views', views=views)]
train_dataloader = dict(dataset=dict(pipeline=pipeline))
custom_hooks = [*_base_.custom_hooks, dict(type='KNNHook', interval=10)]
