# SGD at batch 256 for 200 epochs, a tenth of the rate from 120, 160 on.
optim_wrapper = dict(
    type='ContrastOptimWrapper',
    optimizer=dict(type='SGD', lr=0.03, momentum=0.9, weight_decay=1e-4),
)
param_scheduler = [
    dict(
        type='MultiStepLR',
        milestones=[120, 160],
        gamma=0.1,
        by_epoch=True,
        end=200,
    )
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=200)
auto_scale_lr = dict(base_batch_size=256, enable=False)
