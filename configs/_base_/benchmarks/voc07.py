# VOC07 as mmpretrain reads it: data/VOCdevkit/VOC2007, multi-label;
# resize 256, centre crop 224. Difficult objects do not count.
_base_ = 'multi_label.py'
eval_pipeline = [
    *_base_.centre,
    dict(type='mmmoco.MultiHot', num_classes=20),
    dict(type='mmmoco.PackImage'),
]
split = dict(
    type='mmpretrain.VOC',
    data_root='data/VOCdevkit/VOC2007',
    pipeline=eval_pipeline,
)
knn = dict(
    k=20,
    bank=dict(dataset=dict(split='trainval', **split), **_base_.loader),
    query=dict(dataset=dict(split='test', **split), **_base_.loader),
)
