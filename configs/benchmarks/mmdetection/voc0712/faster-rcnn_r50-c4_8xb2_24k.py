# Faster R-CNN, ResNet-50-C4, VOC07+12, 24k iterations (MoCo v1, table 2).
# Hardware: 8 GPUs of 16 GB.
# Time: not measured.
# Metric: 57.0 AP, 82.4 AP50, 63.6 AP75 for MoCo v2, 200 epochs (published).
_base_ = [
    '../../../_base_/downstream/faster-rcnn_r50-c4.py',
    '../../../_base_/downstream/voc0712_boxes.py',
    '../../../_base_/downstream/detection_90k.py',
    '../../../_base_/downstream/detection_runtime.py',
]
model = dict(roi_head=dict(bbox_head=dict(num_classes=20)))
train_cfg = dict(max_iters=24000, val_interval=4000)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, end=100),
    dict(milestones=[18000, 22000], **_base_.steps),
]
# The extra norm is new.
custom_hooks = [
    dict(type='mmmoco.VerifyPretrainedHook', allow_missing=['norm.*'])
]
