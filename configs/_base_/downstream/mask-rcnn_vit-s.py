# The same on a ViT-S/16 as MoCo v3 has it: 12 heads, not DeiT's 6.
_base_ = 'mask-rcnn_vit-b.py'
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
    neck=[
        dict(
            type='mmseg.Feature2Pyramid',
            embed_dim=384,
            rescales=[4, 2, 1, 0.5],
            norm_cfg=_base_.norm_cfg,
        ),
        dict(
            type='FPN',
            in_channels=[384] * 4,
            out_channels=256,
            num_outs=5,
            norm_cfg=_base_.norm_cfg,
        ),
    ],
)
