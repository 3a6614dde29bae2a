# Scenes of handwritten digits in Cityscapes' layout, ten digits and canvas, as
# small as in pre-training:
#   python tools/make_digit_scenes.py data/digit_scenes --size 48
load = [
    dict(type='LoadImageFromFile', color_type='grayscale'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
names = (*'0123456789', 'canvas')
scenes = dict(
    type='BaseSegDataset',
    data_root='data/digit_scenes/',
    metainfo=dict(classes=names, palette=[[20 * i] * 3 for i in range(11)]),
    img_suffix='_leftImg8bit.png',
    seg_map_suffix='_gtFine_labelTrainIds.png',
    pipeline=load,
)
train_dataloader = dict(
    batch_size=16,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        data_prefix=dict(
            img_path='leftImg8bit/train', seg_map_path='gtFine/train'
        ),
        **scenes,
    ),
)
val_dataloader = dict(
    batch_size=16,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        data_prefix=dict(
            img_path='leftImg8bit/val', seg_map_path='gtFine/val'
        ),
        **scenes,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
