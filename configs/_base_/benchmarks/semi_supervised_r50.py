# All layers of a ResNet-50 tuned on few labels; the head learns 100 times
# faster (the best of the published grid for MoCo).
_base_ = 'linear_r50.py'
model = dict(
    backbone=dict(
        frozen_stages=-1, norm_cfg=dict(type='SyncBN', requires_grad=True)
    )
)
train_dataloader = dict(
    batch_size=64,
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root='data/imagenet',
        data_prefix='train',
        pipeline=_base_.train_pipeline,
    ),
)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=5e-4),
    paramwise_cfg=dict(custom_keys={'head': dict(lr_mult=100)}),
)
param_scheduler = dict(type='MultiStepLR', milestones=[12, 16], gamma=0.2)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=20)
auto_scale_lr = dict(base_batch_size=256)
