# Any folder of images: data_root/train if there is one (ImageNet), else
# data_root itself, at any depth. A leaf config adds the views.
train_dataloader = dict(
    batch_size=32,
    num_workers='auto',  # the cores of the process
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='AddressedSampler', shuffle=True),
    dataset=dict(
        type='ImageFolderDataset',
        data_root='data/imagenet',
        data_prefix='train',
        prefix_optional=True,
    ),
)

# Evaluation: ImageNet's layout, resize 256, centre crop 224.
eval_pipeline = [
    dict(type='LoadRGB'),
    dict(type='ToPIL'),
    dict(type='mmpretrain.torchvision/Resize', size=256),
    dict(type='mmpretrain.torchvision/CenterCrop', size=224),
    dict(type='PackImage'),
]
knn = dict(
    k=20,
    temperature=0.07,
    features='backbone',
    bank=dict(
        batch_size=64,
        num_workers='auto',
        collate_fn=dict(type='default_collate'),
        sampler=dict(type='AddressedSampler', shuffle=False),
        dataset=dict(
            type='ImageFolderDataset',
            data_root='data/imagenet',
            data_prefix='train',
            with_labels=True,
            pipeline=eval_pipeline,
        ),
    ),
    query=dict(
        batch_size=64,
        num_workers='auto',
        collate_fn=dict(type='default_collate'),
        sampler=dict(type='AddressedSampler', shuffle=False),
        dataset=dict(
            type='ImageFolderDataset',
            data_root='data/imagenet',
            data_prefix='val',
            with_labels=True,
            pipeline=eval_pipeline,
        ),
    ),
)
