# Mask R-CNN, ResNet-50-FPN, LVIS v0.5, 180k iterations (MoCo v1, table 6).
# Hardware: 8 GPUs of 16 GB.
# Time: not measured.
# Metric: 24.1 mask AP, 37.4 AP50, 25.5 AP75 for MoCo v1 (published).
_base_ = [
    '../../../_base_/downstream/mask-rcnn_r50-fpn.py',
    'mmdet::_base_/datasets/lvis_v0.5_instance.py',
    '../../../_base_/downstream/detection_180k.py',
    '../../../_base_/downstream/detection_runtime.py',
]
classes = dict(num_classes=1230)
model = dict(
    roi_head=dict(bbox_head=classes, mask_head=classes),
    test_cfg=dict(rcnn=dict(score_thr=1e-4, max_per_img=300)),
)
# mmdet's need the package lvis, which does not go with numpy 2.
instances = dict(type='mmmoco.LVISInstances')
train_dataloader = dict(
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(dataset=instances),
)
val_dataloader = dict(dataset=instances)
test_dataloader = dict(dataset=instances)
val_evaluator = dict(type='mmmoco.LVISAveragePrecision')
test_evaluator = dict(type='mmmoco.LVISAveragePrecision')
