# Mask R-CNN, ResNet-50-FPN, COCO, 180k iterations (MoCo v1, table 5).
# Hardware: 8 GPUs of 16 GB.
# Time: not measured.
# Metric: 40.8 box AP, 36.9 mask AP for MoCo v1, 200 epochs (published).
_base_ = [
    '../../../_base_/downstream/mask-rcnn_r50-fpn.py',
    '../../../_base_/downstream/coco_instances.py',
    '../../../_base_/downstream/detection_180k.py',
    '../../../_base_/downstream/detection_runtime.py',
]
