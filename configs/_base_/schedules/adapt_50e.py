# On from released weights, on a folder of images: the heads learn alone at
# first, rates are lower the earlier a layer, cosine over 50 epochs. What the
# network sees is held against its start on images of the training; with class
# folders k-NN tells more: custom_hooks[-1] = dict(type='DropGuardHook').
_base_ = ['../datasets/image_folder.py', '../default_runtime.py']
optim_wrapper = dict(
    type='ContrastOptimWrapper',
    dtype='bfloat16',
    constructor='mmpretrain.LearningRateDecayOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay_rate=0.9),
)
param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        T_max=50,
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=50)
default_hooks = dict(checkpoint=dict(interval=5))
seen = dict(
    batch_size=64,
    num_workers='auto',
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='AddressedSampler', shuffle=False, limit=2000),
    # That of the training.
    dataset=dict(pipeline=_base_.eval_pipeline),
)
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='VerifyPretrainedHook'),
    dict(type='HeadWarmupHook', iterations=1000),
    dict(type='FillQueueHook'),
    dict(
        type='DropGuardHook',
        interval=5,
        evaluation=dict(type='NeighbourAgreement', k=20),
        margin=60.0,
        bank=seen,
        query=seen,
    ),
]
