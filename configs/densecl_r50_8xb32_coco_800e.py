# DenseCL, ResNet-50, 800 epochs of COCO (arXiv 2011.09157, authors' code).
# Hardware: 8 GPUs of 8 GB or more, 32 images each.
# Time: 24 h on 8 V100 (published by the authors; not measured here).
# Metric: 56.7 AP on VOC07+12, detection; 67.5 mIoU on VOC 2012 (published).
_base_ = 'densecl_r50_8xb32_200e.py'

# Images alone are read; k-NN wants folders of classes, and stays with
# ImageNet.
train_dataloader = dict(
    dataset=dict(
        data_root='data/coco', data_prefix='train2017', prefix_optional=False
    )
)
optim_wrapper = dict(optimizer=dict(lr=0.3))
param_scheduler = [
    dict(type='CosineAnnealingLR', T_max=800, eta_min=0.0, by_epoch=True)
]
train_cfg = dict(max_epochs=800)
