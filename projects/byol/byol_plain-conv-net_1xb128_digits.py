# BYOL on embedded digit scenes (arXiv 2006.07733; the recipe is ours).
# Hardware: two CPU cores.
# Time: about that of demo/mocov2_digits.
# Metric: none published.
import sys

_base_ = 'mmmoco::demo/mocov2_digits.py'

sys.path.append('{{ fileDirname }}')  # where byol.py stands
custom_imports = dict(imports=['byol'])

mlp = dict(
    type='mmpretrain.NonLinearNeck',
    hid_channels=256,
    out_channels=64,
    with_last_bn=False,
    norm_cfg=dict(type='BN1d'),
)
model = dict(
    type='BYOL',
    backbone=dict(norm_cfg=dict(_delete_=True, type='BN')),
    neck=dict(_delete_=True, in_channels=None, **mlp),
    predictor=dict(in_channels=64, with_avg_pool=False, **mlp),
    dictionary=None,
    loss=None,
    m=0.99,
    m_schedule='cosine',
)
