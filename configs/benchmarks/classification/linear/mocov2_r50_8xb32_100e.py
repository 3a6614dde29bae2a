# Linear probe of MoCo v1 and v2, ResNet-50, ImageNet, 100 epochs.
# Hardware: 8 GPUs of 11 GB.
# Time: not measured.
# Metric: 60.6 % top-1 for v1, 67.5 % for v2 (published, 200 epochs).
_base_ = '../../../_base_/benchmarks/linear_r50.py'
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=30.0, momentum=0.9, weight_decay=0.0),
)
param_scheduler = dict(type='MultiStepLR', milestones=[60, 80], gamma=0.1)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=100)
auto_scale_lr = dict(base_batch_size=256)
