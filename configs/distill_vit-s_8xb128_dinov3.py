# Distillation of DINOv3 ViT-B/16 into a ViT-S/16 (ours).
# Hardware: 8 GPUs of 24 GB or more, 128 images each.
# Time: not measured.
# Metric: none published.
_base_ = [
    '_base_/models/distill_dinov3.py',
    '_base_/datasets/image_folder.py',
    '_base_/views/distillation.py',
    '_base_/schedules/adamw_100e.py',
    '_base_/default_runtime.py',
]
model = dict(
    backbone=dict(
        type='mmpretrain.VisionTransformer',
        arch='deit-small',
        img_size=224,
        patch_size=16,
    ),
)
views = dict(type='Views', views=dict(view=_base_.view))
pipeline = [dict(type='LoadRGB'), views]
train_dataloader = dict(batch_size=128, dataset=dict(pipeline=pipeline))
auto_scale_lr = dict(base_batch_size=1024)
