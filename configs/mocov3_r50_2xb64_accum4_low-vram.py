# MoCo v3 with a queue, ResNet-50, on two small GPUs: a recipe of our own.
# Hardware: 2 GPUs of 8 GB, 64 images each, 4 accumulated: effective batch 512.
# Time: not measured.
# Metric: none published.
_base_ = 'mocov3_r50_16xb256_300e.py'

model = dict(
    dictionary=dict(type='Queue', size=65536, feat_dim=256),
    loss=dict(temperature=0.2),
)
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(
    dtype='bfloat16',
    accumulative_counts=4,
    optimizer=dict(_delete_=True, type='AdamW', lr=3e-4, weight_decay=0.1),
)
# lr is the actual one, at the effective batch.
auto_scale_lr = dict(base_batch_size=512, enable=False)
auto_scale_m = dict(base_batch_size=512)
