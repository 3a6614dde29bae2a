# DenseCL on ResNet-50 (arXiv 2011.09157): the model of MoCo v2 with a second
# head and a second queue, which is made as the first one.
_base_ = 'mocov2_r50.py'
model = dict(
    type='DenseCL',
    neck=dict(
        type='mmpretrain.DenseCLNeck',
        # Only the linear layers, as in the authors' code.
        init_cfg=dict(
            type='Kaiming', layer='Linear', mode='fan_in', nonlinearity='relu'
        ),
    ),
    loss_lambda=0.5,
)
