# BigEarthNet, 19 classes, RGB: data/bigearthnet/{train,test}.json in
# mmpretrain's multi-label format; resize 256, centre crop 224.
_base_ = 'multi_label.py'
eval_pipeline = [
    *_base_.centre,
    dict(type='mmmoco.MultiHot', num_classes=19),
    dict(type='mmmoco.PackImage'),
]
split = dict(
    type='mmpretrain.MultiLabelDataset',
    data_root='data/bigearthnet',
    pipeline=eval_pipeline,
)
knn = dict(
    k=(20, 10, 100, 200),
    bank=dict(dataset=dict(ann_file='train.json', **split), **_base_.loader),
    query=dict(dataset=dict(ann_file='test.json', **split), **_base_.loader),
)
