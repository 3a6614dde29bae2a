# EuroSAT: data/eurosat/<class>/*.jpg, split 80/20 by
# tools/make_label_subset.py (seed 42); resize 256, centre crop 224.
eval_pipeline = [
    dict(type='LoadRGB'),
    dict(type='ToPIL'),
    dict(type='mmpretrain.torchvision/Resize', size=256),
    dict(type='mmpretrain.torchvision/CenterCrop', size=224),
    dict(type='PackImage'),
]
loader = dict(
    batch_size=64,
    num_workers=4,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='AddressedSampler', shuffle=False),
)
split = dict(
    type='ImageFolderDataset',
    data_root='data/eurosat',
    with_labels=True,
    pipeline=eval_pipeline,
)
knn = dict(
    k=(20, 10, 100, 200),
    temperature=0.07,
    features='backbone',
    bank=dict(dataset=dict(ann_file='train.txt', **split), **loader),
    query=dict(dataset=dict(ann_file='test.txt', **split), **loader),
)
