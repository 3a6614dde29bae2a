# MoCo v2, ResNet-50, 800 epochs of ImageNet (arXiv 2003.04297, table 1).
# Hardware: 8 GPUs of 8 GB or more, 32 images each.
# Time: four times that of 200 epochs, which is 53 h on 8 V100 (published).
# Metric: 71.1 % linear top-1 (published by the authors).
_base_ = 'mocov2_r50_8xb32.py'

param_scheduler = [
    dict(type='CosineAnnealingLR', T_max=800, eta_min=0.0, by_epoch=True)
]
train_cfg = dict(max_epochs=800)
