# Table 6 of MoCo v1: FCN-16s, ResNet-50, Cityscapes, 2975 fine labels.
# Hardware: 8 GPUs of 11 GB.
# Time: not measured.
# Metric: 75.3 mIoU for MoCo v1, 74.6 supervised, 65.3 random (published).
_base_ = [
    '../../../_base_/downstream/fcn16s_r50.py',
    '../../../_base_/downstream/segmentation_runtime.py',
    *__import__('mmmoco.apis', fromlist=['_']).package_bases(
        'mmseg::_base_/datasets/cityscapes.py',
        'mmseg::_base_/schedules/schedule_80k.py',
        'mmseg::_base_/default_runtime.py',
    ),
]
crop = (769, 769)
model = dict(data_preprocessor=dict(size=crop))
ratio = dict(ratio_range=(0.5, 2.0), keep_ratio=True)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(2048, 1024), **ratio),
    dict(type='RandomCrop', crop_size=crop),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=train_pipeline))
whole = [_base_.test_pipeline[0], *_base_.test_pipeline[2:]]  # not resized
val_dataloader = test_dataloader = dict(dataset=dict(pipeline=whole))
optim_wrapper = dict(optimizer=dict(lr=0.01, weight_decay=1e-4))
param_scheduler = [
    dict(type='MultiStepLR', milestones=[63000, 81000], by_epoch=False)
]
train_cfg = dict(max_iters=90000, val_interval=30000)
