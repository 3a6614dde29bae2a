# RetinaNet on embedded digit scenes: sees what pre-training gives a detector.
# Hardware: two CPU cores.
# Time: 88 s of CPU time; not measured on a quiet machine.
# Metric: 65.1 mAP pre-trained, 50.4 random (ours, mean of seeds 0 and 1).
_base_ = [
    '../../../_base_/downstream/retinanet_plain-conv-net.py',
    '../../../_base_/downstream/digit_scenes_boxes.py',
    '../../../_base_/downstream/detection_90k.py',
    '../../../_base_/downstream/detection_runtime.py',
]
train_cfg = dict(max_iters=500, val_interval=500)
# With SGD the focal loss stays on a plateau for a time that luck decides.
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-3, weight_decay=0.05)
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, end=50),
    dict(milestones=[350, 450], **_base_.steps),
]
default_hooks = dict(checkpoint=dict(interval=500))
randomness = dict(seed=0)
