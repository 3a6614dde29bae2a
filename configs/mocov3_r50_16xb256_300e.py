# MoCo v3, ResNet-50, 300 epochs of ImageNet (arXiv 2104.02057, authors' code).
# Hardware: 16 GPUs of 32 GB, 256 images each.
# Time: not published.
# Metric: 72.8 % linear top-1 (published by the authors).
_base_ = 'mocov3_r50_16xb256_100e.py'

optim_wrapper = dict(optimizer=dict(lr=0.3))
param_scheduler = [
    _base_.warmup,
    dict(_base_.cosine, T_max=290, end=300),
]
train_cfg = dict(max_epochs=300)
