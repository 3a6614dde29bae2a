# Distillation of DINOv2 ViT-B/14 into a ResNet-50, for detectors (ours).
# Hardware: 8 GPUs of 24 GB or more, 128 images each.
# Time: not measured.
# Metric: none published.
_base_ = [
    '_base_/models/distill_r50_dinov2.py',
    '_base_/datasets/image_folder.py',
    '_base_/views/distillation.py',
    '_base_/schedules/adamw_100e.py',
    '_base_/default_runtime.py',
]

views = dict(type='Views', views=dict(view=_base_.view))
pipeline = [dict(type='LoadRGB'), views]
train_dataloader = dict(batch_size=128, dataset=dict(pipeline=pipeline))
auto_scale_lr = dict(base_batch_size=1024)
