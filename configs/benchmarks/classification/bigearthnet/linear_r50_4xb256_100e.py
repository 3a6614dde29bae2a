# Linear probe on BigEarthNet-19, ResNet-50, 100 epochs (SSL4EO-S12).
# Hardware: 4 GPUs of 16 GB.
# Time: not measured.
# Metric: 84.2 % micro mAP (SSL4EO-S12, MoCo v2, 13 bands).
_base_ = '../../../_base_/benchmarks/bigearthnet_linear.py'
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=8.0, momentum=0.9, weight_decay=0.0),
)
param_scheduler = dict(type='MultiStepLR', milestones=[60, 80], gamma=0.1)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=100)
auto_scale_lr = dict(base_batch_size=1024)
