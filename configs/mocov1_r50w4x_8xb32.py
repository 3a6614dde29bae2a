# MoCo v1, ResNet-50 of four-fold width (375M) (arXiv 1911.05722, section 4.1).
# Hardware: 8 GPUs of 32 GB or more, 32 images each.
# Time: not published.
# Metric: 68.6 % linear top-1 after 200 epochs (published by the authors).
_base_ = 'mocov1_r50_8xb32.py'

model = dict(
    backbone=dict(stem_channels=256, base_channels=256),
)
