# 100 epochs, 10 of warm-up, cosine, all per iteration.
per_iteration = dict(by_epoch=True, convert_to_iter_based=True)
warmup = dict(type='WarmupLR', begin=0, end=10, **per_iteration)
cosine = dict(
    type='CosineAnnealingLR', T_max=90, begin=10, end=100, **per_iteration
)
param_scheduler = [warmup, cosine]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=100)
