# BigEarthNet for mmpretrain's classifier: soft margin over 19 classes.
_base_ = 'linear_r50.py'
model = dict(
    head=dict(
        _delete_=True,
        type='MultiLabelLinearClsHead',
        num_classes=19,
        in_channels=2048,
        loss=dict(type='CrossEntropyLoss', use_sigmoid=True, reduction='mean'),
        init_cfg=dict(type='Normal', layer='Linear', std=0.01, bias=0.0),
    )
)
data_preprocessor = dict(
    num_classes=19,
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
    to_onehot=True,
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='RandomResizedCrop',
        scale=224,
        crop_ratio_range=(0.8, 1.0),
        backend='pillow',
    ),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=256, edge='short', backend='pillow'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
data = dict(
    _delete_=True, type='MultiLabelDataset', data_root='data/bigearthnet'
)
train_dataloader = dict(
    batch_size=256,
    dataset=dict(ann_file='train.json', pipeline=train_pipeline, **data),
)
val_dataloader = dict(
    dataset=dict(ann_file='test.json', pipeline=test_pipeline, **data)
)
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, type='mmmoco.MicroAveragePrecision')
test_evaluator = val_evaluator
