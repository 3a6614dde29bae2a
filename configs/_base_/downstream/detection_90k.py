# The 1x schedule of Detectron2: 90k iterations of 16 images.
train_cfg = dict(
    type='IterBasedTrainLoop', max_iters=90000, val_interval=10000
)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=1e-4),
)
warm_up = dict(type='LinearLR', start_factor=1e-3, by_epoch=False, end=1000)
steps = dict(type='MultiStepLR', by_epoch=False, gamma=0.1)
param_scheduler = [warm_up, dict(milestones=[60000, 80000], **steps)]
auto_scale_lr = dict(enable=False, base_batch_size=16)
