# Scenes of handwritten digits in COCO's layout, as small as in pre-training:
#   python tools/make_digit_scenes.py data/digit_scenes --size 48
load = [
    dict(type='LoadImageFromFile', color_type='grayscale'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(48, 48), keep_ratio=True),
]
scenes = dict(
    type='CocoDataset',
    data_root='data/digit_scenes/',
    metainfo=dict(classes=tuple('0123456789')),
)
loader = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(
    batch_size=16,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        ann_file='annotations/instances_train.json',
        data_prefix=dict(img='train/'),
        pipeline=[*load, dict(type='PackDetInputs')],
        **scenes,
    ),
    **loader,
)
keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
val_dataloader = dict(
    batch_size=16,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        ann_file='annotations/instances_val.json',
        data_prefix=dict(img='val/'),
        test_mode=True,
        pipeline=[*load, dict(type='PackDetInputs', meta_keys=keys)],
        **scenes,
    ),
    **loader,
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type='CocoMetric',
    ann_file='data/digit_scenes/annotations/instances_val.json',
    metric='bbox',
)
test_evaluator = val_evaluator
