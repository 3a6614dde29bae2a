# MoCo v1 on ResNet-50 (arXiv 1911.05722): one linear layer, temperature 0.07.
_base_ = 'mocov2_r50.py'
model = dict(
    type='MoCoV1',
    neck=dict(
        _delete_=True,
        type='mmpretrain.LinearNeck',
        in_channels=None,  # as wide as what the backbone gives
        out_channels=128,
        gap_dim=2,
        norm_cfg=None,
    ),
    loss=dict(temperature=0.07),
)
