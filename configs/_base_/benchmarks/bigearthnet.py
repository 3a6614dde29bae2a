# BigEarthNet, 19 classes, RGB: data/bigearthnet/{train,test}.json in
# mmpretrain's multi-label format; resize 256, centre crop 224.
eval_pipeline = [
    dict(type='mmmoco.LoadRGB'),
    dict(type='mmmoco.ToPIL'),
    dict(type='mmpretrain.torchvision/Resize', size=256),
    dict(type='mmpretrain.torchvision/CenterCrop', size=224),
    dict(type='mmmoco.MultiHot', num_classes=19),
    dict(type='mmmoco.PackImage'),
]
loader = dict(
    batch_size=64,
    num_workers=4,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
split = dict(
    type='mmpretrain.MultiLabelDataset',
    data_root='data/bigearthnet',
    pipeline=eval_pipeline,
)
knn = dict(
    k=(20, 10, 100, 200),
    temperature=0.07,
    features='backbone',
    bank=dict(dataset=dict(ann_file='train.json', **split), **loader),
    query=dict(dataset=dict(ann_file='test.json', **split), **loader),
)
