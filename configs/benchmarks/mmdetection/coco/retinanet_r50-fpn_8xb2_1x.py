# RetinaNet, ResNet-50-FPN, COCO, 90k iterations (recipe of mmselfsup).
# Hardware: 8 GPUs of 16 GB.
# Time: not measured.
# Metric: none published with MoCo.
_base_ = [
    '../../../_base_/downstream/retinanet_r50-fpn.py',
    '../../../_base_/downstream/coco_boxes.py',
    '../../../_base_/downstream/detection_90k.py',
    '../../../_base_/downstream/detection_runtime.py',
]
optim_wrapper = dict(optimizer=dict(lr=0.01))
