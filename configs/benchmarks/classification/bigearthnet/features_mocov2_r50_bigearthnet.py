# BigEarthNet with frozen features of MoCo v2, ResNet-50: k-NN and linear.
# Hardware: one GPU.
# Time: not measured.
# Metric: none published for k-NN; 84.2 % linear micro mAP (SSL4EO-S12).
_base_ = [
    '../../../_base_/models/mocov2_r50.py',
    '../../../_base_/benchmarks/bigearthnet.py',
    '../../../_base_/default_runtime.py',
]
