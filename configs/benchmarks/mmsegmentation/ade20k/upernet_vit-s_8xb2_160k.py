# UPerNet on ViT-S/16 of MoCo v3 (12 heads, not DeiT's 6), ADE20K, 160k.
# Hardware: 8 GPUs of 16 GB.
# Time: not measured.
# Metric: none published.
_base_ = 'upernet_vit-b_8xb2_160k.py'
model = dict(
    backbone=dict(
        arch=dict(
            _delete_=True,
            embed_dims=384,
            num_layers=12,
            num_heads=12,
            feedforward_channels=1536,
        )
    ),
    neck=dict(embed_dim=384),
    decode_head=dict(in_channels=[384] * 4, channels=384),
    auxiliary_head=dict(in_channels=384),
)
