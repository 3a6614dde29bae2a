# MoCo v1 on 940M uncurated images, 1.25M iterations (arXiv 1911.05722, 4.1).
# Hardware: 64 GPUs, 16 images each.
# Time: about 6 days on 64 GPUs (published by the authors).
# Metric: 77.3 % top-1 fine-tuned on ImageNet (published by the authors, A.7).
_base_ = 'mocov1_r50_8xb32.py'

train_dataloader = dict(
    batch_size=16,
    sampler=dict(infinite=True),
    dataset=dict(data_root='data/images'),
)
optim_wrapper = dict(optimizer=dict(lr=0.12))
param_scheduler = [
    dict(
        type='StepLR', step_size=62500, gamma=0.9, by_epoch=False, end=1250000
    )
]
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=1250000)
auto_scale_lr = dict(base_batch_size=1024)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=10000))
log_processor = dict(by_epoch=False)
