# Two global views with the colours of MoCo v3, as in SiT, and local ones of
# 96 pixels, sizes and areas as in GMML.
_base_ = 'mocov3.py'
global_crop = dict(
    type='FastRandomResizedCrop',
    size=224,
    scale=(0.25, 1.0),
)
local_crop = dict(
    type='FastRandomResizedCrop',
    size=96,
    scale=(0.05, 0.4),
)
views = dict(
    view_1=[global_crop, *_base_.view_1],
    view_2=[global_crop, *_base_.view_2],
    **{f'local_{i}': [local_crop, *_base_.view_1] for i in range(1, 9)},
)
