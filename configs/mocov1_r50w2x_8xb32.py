# MoCo v1, ResNet-50 of double width (94M), 200 epochs (arXiv 1911.05722, 4.1).
# Hardware: 8 GPUs of 16 GB or more, 32 images each.
# Time: not published.
# Metric: 65.4 % linear top-1 (published by the authors).
_base_ = 'mocov1_r50_8xb32.py'

model = dict(
    backbone=dict(stem_channels=128, base_channels=128),
)
