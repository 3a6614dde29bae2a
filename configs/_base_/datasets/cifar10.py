# CIFAR-10 as image files: data/cifar10/{train,test}/<class>/*. k-NN as the
# authors of MoCo monitor it. A leaf config adds the views.
eval_pipeline = [dict(type='LoadRGB'), dict(type='PackImage')]
train_dataloader = dict(
    batch_size=512,
    num_workers='auto',  # the cores of the process
    persistent_workers=True,
    pin_memory=True,
    drop_last=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='AddressedSampler', shuffle=True),
    dataset=dict(
        type='ImageFolderDataset',
        data_root='data/cifar10',
        data_prefix='train',
    ),
)
knn = dict(
    k=200,
    temperature=0.1,
    features='neck',
    bank=dict(
        batch_size=512,
        num_workers='auto',
        collate_fn=dict(type='default_collate'),
        sampler=dict(type='AddressedSampler', shuffle=False),
        dataset=dict(
            type='ImageFolderDataset',
            data_root='data/cifar10',
            data_prefix='train',
            with_labels=True,
            pipeline=eval_pipeline,
        ),
    ),
    query=dict(
        batch_size=512,
        num_workers='auto',
        collate_fn=dict(type='default_collate'),
        sampler=dict(type='AddressedSampler', shuffle=False),
        dataset=dict(
            type='ImageFolderDataset',
            data_root='data/cifar10',
            data_prefix='test',
            with_labels=True,
            pipeline=eval_pipeline,
        ),
    ),
)
