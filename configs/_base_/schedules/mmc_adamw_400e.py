# AdamW with fp16, 10 epochs of warm-up, cosine to 1e-6, per iteration; no
# decay on biases and vectors; gradients clipped (SiT). lr is the actual one
# for the batch of 256.
optim_wrapper = dict(
    type='ContrastOptimWrapper',
    dtype='float16',
    optimizer=dict(
        type='AdamW', lr=7.5e-4, betas=(0.9, 0.999), weight_decay=0.04
    ),
    paramwise_cfg=dict(
        norm_decay_mult=0.0, bias_decay_mult=0.0, flat_decay_mult=0.0
    ),
    clip_grad=dict(max_norm=3.0),
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-4,
        begin=0,
        end=10,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        T_max=390,
        eta_min=1e-6,
        begin=10,
        end=400,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=400)
auto_scale_lr = dict(base_batch_size=256, enable=False)
