# LARS with fp16, 10 epochs of warm-up, cosine, all per iteration. lr is that
# for batch 256, scaled to the effective batch when the run starts.
optim_wrapper = dict(
    type='ContrastOptimWrapper',
    dtype='float16',
    optimizer=dict(
        type='LARS', lr=0.6, momentum=0.9, weight_decay=1e-6, trust=0.001
    ),
)
warmup = dict(
    type='WarmupLR',
    begin=0,
    end=10,
    by_epoch=True,
    convert_to_iter_based=True,
)
param_scheduler = [
    warmup,
    dict(
        type='CosineAnnealingLR',
        T_max=90,
        begin=10,
        end=100,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=100)
auto_scale_lr = dict(base_batch_size=256, enable=True)
