# Fine-tuning of MoCo v3, ViT-S/16, ImageNet, 150 epochs.
# Hardware: 8 GPUs of 24 GB.
# Time: not measured.
# Metric: 81.4 % top-1 (published by the authors, other settings).
_base_ = '../../../_base_/benchmarks/fine_tune_vit.py'
model = dict(backbone=dict(arch='small'), head=dict(in_channels=384))
