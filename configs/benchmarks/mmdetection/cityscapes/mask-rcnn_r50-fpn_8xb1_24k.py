# Mask R-CNN, ResNet-50-FPN, Cityscapes, 24k iterations (MoCo v1, table 6).
# Hardware: 8 GPUs of 16 GB.
# Time: not measured.
# Metric: 32.3 mask AP, 59.3 AP50 for MoCo v1, 200 epochs (published).
_base_ = [
    '../../../_base_/downstream/mask-rcnn_r50-fpn.py',
    '../../../_base_/downstream/cityscapes_instances.py',
    '../../../_base_/downstream/detection_90k.py',
    '../../../_base_/downstream/detection_runtime.py',
]
classes = dict(num_classes=8)
model = dict(roi_head=dict(bbox_head=classes, mask_head=classes))
train_cfg = dict(max_iters=24000, val_interval=4000)
optim_wrapper = dict(optimizer=dict(lr=0.01))
param_scheduler = [
    _base_.warm_up,
    dict(milestones=[18000], **_base_.steps),
]
auto_scale_lr = dict(base_batch_size=8)
