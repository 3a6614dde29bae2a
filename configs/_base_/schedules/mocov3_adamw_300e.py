# AdamW with fp16, 40 epochs of warm-up, cosine, all per iteration; decay on
# all parameters. lr is that for batch 256, scaled to the effective batch when
# the run starts.
optim_wrapper = dict(
    type='ContrastOptimWrapper',
    dtype='float16',
    optimizer=dict(
        type='AdamW', lr=1.5e-4, betas=(0.9, 0.999), weight_decay=0.1
    ),
)
per_iteration = dict(by_epoch=True, convert_to_iter_based=True)
param_scheduler = [
    dict(type='WarmupLR', begin=0, end=40, **per_iteration),
    dict(
        type='CosineAnnealingLR', T_max=260, begin=40, end=300, **per_iteration
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=300)
auto_scale_lr = dict(base_batch_size=256, enable=True)
auto_scale_m = dict(base_batch_size=4096, enable=False)
