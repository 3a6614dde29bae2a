# Table 6 of MoCo v1: FCN-16s, ResNet-50, VOC 2012 with SBD's labels.
# Hardware: 8 GPUs of 11 GB.
# Time: not measured.
# Metric: 72.5 mIoU for MoCo v1, 74.4 supervised, 39.5 random (published).
_base_ = [
    '../../../_base_/downstream/fcn16s_r50.py',
    '../../../_base_/downstream/segmentation_runtime.py',
    *__import__('mmmoco.apis', fromlist=['_']).package_bases(
        'mmseg::_base_/datasets/pascal_voc12_aug.py',
        'mmseg::_base_/schedules/schedule_20k.py',
        'mmseg::_base_/default_runtime.py',
    ),
]
crop = (513, 513)
model = dict(
    data_preprocessor=dict(size=crop), decode_head=dict(num_classes=21)
)
ratio = dict(ratio_range=(0.5, 2.0), keep_ratio=True)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    # Images of VOC are 500 pixels long: 0.5 to 2 times their size.
    dict(type='RandomResize', scale=(500, 500), **ratio),
    dict(type='RandomCrop', crop_size=crop),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
parts = [
    dict(_base_.dataset_train, pipeline=train_pipeline),
    dict(_base_.dataset_aug, pipeline=train_pipeline),
]
train_dataloader = dict(batch_size=2, dataset=dict(datasets=parts))
whole = [_base_.test_pipeline[0], *_base_.test_pipeline[2:]]  # not resized
val_dataloader = test_dataloader = dict(dataset=dict(pipeline=whole))
optim_wrapper = dict(optimizer=dict(lr=0.003, weight_decay=1e-4))
param_scheduler = [
    dict(type='MultiStepLR', milestones=[21000, 27000], by_epoch=False)
]
train_cfg = dict(max_iters=30000, val_interval=10000)
