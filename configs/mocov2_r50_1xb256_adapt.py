# MoCo v2, ResNet-50, on from released weights: --init CKPT (ours).
# Hardware: one GPU of 24 GB or more, 256 images.
# Time: not measured.
# Metric: none published.
_base_ = [
    '_base_/models/mocov2_r50.py',
    '_base_/views/mocov2.py',
    '_base_/schedules/adapt_50e.py',
]

model = dict(
    backbone=dict(
        # Parts of 32 images take the place of GPUs.
        norm_cfg=dict(type='SplitBN', num_splits=8),
        init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.'),
    ),
    dictionary=dict(size=16384, exclude_same_image=True),
)
pipeline = [dict(type='LoadRGB'), dict(type='Views', views=_base_.views)]
train_dataloader = dict(batch_size=256, dataset=dict(pipeline=pipeline))
# A tenth of what a training from the beginning takes.
optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.003, momentum=0.9, weight_decay=1e-4)
)
auto_scale_lr = dict(base_batch_size=256, enable=False)
