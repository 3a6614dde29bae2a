# VOC07 as mmpretrain reads it: data/VOCdevkit/VOC2007, multi-label;
# resize 256, centre crop 224. Difficult objects do not count.
eval_pipeline = [
    dict(type='mmmoco.LoadRGB'),
    dict(type='mmmoco.ToPIL'),
    dict(type='mmpretrain.torchvision/Resize', size=256),
    dict(type='mmpretrain.torchvision/CenterCrop', size=224),
    dict(type='mmmoco.MultiHot', num_classes=20),
    dict(type='mmmoco.PackImage'),
]
loader = dict(
    batch_size=64,
    num_workers=4,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
split = dict(
    type='mmpretrain.VOC',
    data_root='data/VOCdevkit/VOC2007',
    pipeline=eval_pipeline,
)
knn = dict(
    k=20,
    temperature=0.07,
    features='backbone',
    bank=dict(dataset=dict(split='trainval', **split), **loader),
    query=dict(dataset=dict(split='test', **split), **loader),
)
