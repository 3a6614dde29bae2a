# MoCo v3, ResNet-50, 1000 epochs (arXiv 2104.02057, authors' code).
# Hardware: 16 GPUs of 32 GB, 256 images each.
# Time: not published.
# Metric: 74.6 % linear top-1 (published by the authors).
_base_ = 'mocov3_r50_16xb256_100e.py'

model = dict(m=0.996)
optim_wrapper = dict(optimizer=dict(lr=0.3, weight_decay=1.5e-6))
param_scheduler = [
    _base_.warmup,
    dict(_base_.cosine, T_max=990, end=1000),
]
train_cfg = dict(max_epochs=1000)
