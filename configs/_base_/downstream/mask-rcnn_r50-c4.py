# Mask R-CNN, ResNet-50-C4.
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50-caffe-c4.py',
    'r50-c4.py',
]
model = _base_.c4
