# Cityscapes, eight classes, masks: data/cityscapes/{leftImg8bit,gtFine} and
# annotations/ of mmdet's tools/dataset_converters/cityscapes.py. Training
# images have a short side of 800 to 1024 pixels, in steps of 32.
_base_ = 'mmdet::_base_/datasets/cityscapes_instance.py'
scales = [(2048, side) for side in range(800, 1025, 32)]
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomChoiceResize', scales=scales, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(dataset=dict(pipeline=train_pipeline)),
)
