# FCN on embedded digit scenes: sees what pre-training gives a segmentor.
# Hardware: two CPU cores.
# Time: less than a minute of CPU time for each start.
# Metric: 53.6, 54.9 mIoU pre-trained, 23.7, 40.6 random (ours, seeds 0, 1).
_base_ = [
    '../../../_base_/downstream/fcn_plain-conv-net.py',
    '../../../_base_/downstream/digit_scenes_labels.py',
    '../../../_base_/downstream/segmentation_runtime.py',
    *__import__('mmmoco.apis', fromlist=['_']).package_bases(
        'mmseg::_base_/schedules/schedule_20k.py',
        'mmseg::_base_/default_runtime.py',
    ),
]
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=2e-3, weight_decay=1e-4)
)
param_scheduler = [
    dict(type='MultiStepLR', milestones=[350, 450], by_epoch=False)
]
train_cfg = dict(max_iters=500, val_interval=500)
default_hooks = dict(checkpoint=dict(interval=500))
randomness = dict(seed=0)
