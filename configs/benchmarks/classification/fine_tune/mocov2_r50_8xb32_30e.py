# Fine-tuning of a ResNet-50, ImageNet, 30 epochs (protocol of lightly).
# Hardware: 8 GPUs of 11 GB.
# Time: not measured.
# Metric: 74.3 % top-1 for MoCo v2 of 100 epochs, batch 256 (lightly).
_base_ = '../../../_base_/benchmarks/linear_r50.py'
model = dict(backbone=dict(frozen_stages=-1))
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.05, momentum=0.9, weight_decay=0.0),
)
param_scheduler = dict(
    type='CosineAnnealingLR', T_max=30, convert_to_iter_based=True
)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=30)
auto_scale_lr = dict(base_batch_size=256)
