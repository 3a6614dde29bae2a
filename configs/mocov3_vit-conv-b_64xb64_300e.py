# MoCo v3, ViT-B, convolutional stem, 300 epochs (2104.02057, their code).
# Hardware: 64 GPUs, 64 images each.
# Time: not published.
# Metric: none known to us.
_base_ = 'mocov3_vit-b_64xb64_300e.py'

model = dict(
    backbone=dict(
        arch='conv-base',
        stop_grad_conv1=False,
        stem_norm_cfg=dict(type='SyncBN'),
    )
)
