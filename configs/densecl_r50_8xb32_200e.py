# DenseCL, ResNet-50, 200 epochs of ImageNet (arXiv 2011.09157, authors' code).
# Hardware: 8 GPUs of 8 GB or more, 32 images each.
# Time: 55 h on 8 V100 (published by the authors; not measured here).
# Metric: 58.7 AP on VOC07+12, detection; 69.4 mIoU on VOC 2012 (published).
_base_ = 'mocov2_r50_8xb32.py'

model = dict(
    type='DenseCL',
    neck=dict(
        type='mmpretrain.DenseCLNeck',
        # Only the linear layers, as in their code.
        init_cfg=dict(
            type='Kaiming',
            layer='Linear',
            mode='fan_in',
            nonlinearity='relu',
        ),
    ),
    # Its second queue, of dense keys, is made as the first one.
    loss_lambda=0.5,
)
