# AdamW at batch 256 for 100 epochs.
_base_ = 'cosine_100e.py'
optim_wrapper = dict(
    type='ContrastOptimWrapper',
    dtype='bfloat16',
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.05),
)
auto_scale_lr = dict(base_batch_size=256, enable=False)
