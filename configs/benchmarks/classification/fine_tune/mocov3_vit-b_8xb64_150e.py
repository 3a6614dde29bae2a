# Fine-tuning of MoCo v3, ViT-B/16, ImageNet, 150 epochs.
# Hardware: 8 GPUs of 24 GB.
# Time: not measured.
# Metric: 83.0 % top-1 (mmpretrain, without the decay from layer to layer).
_base_ = '../../../_base_/benchmarks/fine_tune_vit.py'
