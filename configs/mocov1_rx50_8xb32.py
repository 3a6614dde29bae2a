# MoCo v1, ResNeXt-50 32x8d (46M), 200 epochs (arXiv 1911.05722, section 4.1).
# Hardware: 8 GPUs of 16 GB or more, 32 images each.
# Time: not published.
# Metric: 63.9 % linear top-1 (published by the authors).
_base_ = 'mocov1_r50_8xb32.py'

model = dict(
    backbone=dict(type='mmpretrain.ResNeXt', groups=32, width_per_group=8)
)
