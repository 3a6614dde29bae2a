# Linear probe on EuroSAT, ResNet-50, 100 epochs (protocol of SSL4EO-S12).
# Hardware: 4 GPUs of 8 GB.
# Time: not measured.
# Metric: 98.0 % top-1 (SSL4EO-S12, MoCo v2, 13 bands).
_base_ = '../../../_base_/benchmarks/linear_r50.py'
model = dict(head=dict(num_classes=10, topk=(1,)))
data = dict(_delete_=True, type='CustomDataset', data_root='data/eurosat')
train_dataloader = dict(
    batch_size=64,
    dataset=dict(ann_file='train.txt', pipeline=_base_.train_pipeline, **data),
)
val_dataloader = dict(
    dataset=dict(ann_file='test.txt', pipeline=_base_.test_pipeline, **data)
)
test_dataloader = val_dataloader
val_evaluator = dict(topk=(1,))
test_evaluator = val_evaluator
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=8.0, momentum=0.9, weight_decay=0.0),
)
param_scheduler = dict(type='MultiStepLR', milestones=[60, 80], gamma=0.1)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=100)
auto_scale_lr = dict(base_batch_size=256)
