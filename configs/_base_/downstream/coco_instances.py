# COCO, boxes and masks: data/coco/{train2017,val2017,annotations}. Training
# images have a short side of 640 to 800 pixels, in steps of 32.
_base_ = 'mmdet::_base_/datasets/coco_instance.py'
scales = [(1333, side) for side in range(640, 801, 32)]
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomChoiceResize', scales=scales, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(pipeline=train_pipeline),
)
