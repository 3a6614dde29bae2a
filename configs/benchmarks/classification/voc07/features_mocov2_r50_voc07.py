# VOC07 with frozen features of MoCo v2, ResNet-50: tools/svm.py, low-shot.
# Hardware: one GPU, or a CPU.
# Time: not measured.
# Metric: 84.26 % mAP; 43.0, 76.35, 82.45 % with 1, 16, 96 (OpenSelfSup).
_base_ = [
    '../../../_base_/models/mocov2_r50.py',
    '../../../_base_/benchmarks/voc07.py',
    '../../../_base_/default_runtime.py',
]
