# The 2x schedule of Detectron2: 180k iterations of 16 images.
_base_ = 'detection_90k.py'
train_cfg = dict(max_iters=180000)
param_scheduler = [
    _base_.warm_up,
    dict(milestones=[120000, 160000], **_base_.steps),
]
