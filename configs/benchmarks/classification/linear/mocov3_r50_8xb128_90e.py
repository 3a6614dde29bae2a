# Linear probe of MoCo v3, ResNet-50, ImageNet, 90 epochs.
# Hardware: 8 GPUs of 16 GB.
# Time: not measured.
# Metric: 68.9, 72.8, 74.6 % top-1 for 100, 300, 1000 epochs (published).
_base_ = '../../../_base_/benchmarks/linear_r50.py'
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.4, momentum=0.9, weight_decay=0.0),
)
param_scheduler = dict(type='CosineAnnealingLR', T_max=90)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=90)
auto_scale_lr = dict(base_batch_size=1024)
