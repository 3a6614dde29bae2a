# MoCo v3, ViT-S, convolutional stem, 300 epochs (2104.02057, their code).
# Hardware: 32 GPUs, 128 images each.
# Time: not published.
# Metric: none known to us.
_base_ = 'mocov3_vit-s_32xb128_300e.py'

model = dict(
    backbone=dict(
        arch='conv-small',
        stop_grad_conv1=False,
        stem_norm_cfg=dict(type='SyncBN'),
    )
)
