# MMC on embedded scenes of several digits: zero-shot segmentation in small.
# Hardware: two CPU cores.
# Time: 5 minutes of CPU time (measured).
# Metric: see docs/mmc.md (ours).
_base_ = [
    '../_base_/models/mmc_vit-digits.py',
    '../_base_/datasets/digits.py',
    '../_base_/default_runtime.py',
]

scenes = dict(size=64, digits_per_image=(2, 4), scenes_per_digit=1)
train_dataloader = dict(batch_size=32, dataset=scenes)
knn = dict(bank=dict(dataset=dict(size=64)), query=dict(dataset=dict(size=64)))
optim_wrapper = dict(
    type='ContrastOptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.04),
    clip_grad=dict(max_norm=3.0),
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-3,
        begin=0,
        end=3,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        T_max=24,
        begin=3,
        end=27,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=27)
auto_scale_lr = dict(base_batch_size=32, enable=False)
default_hooks = dict(logger=dict(interval=33), checkpoint=dict(interval=9))
randomness = dict(seed=0)
