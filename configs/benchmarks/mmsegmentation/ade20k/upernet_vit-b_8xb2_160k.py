# UPerNet on ViT-B/16 (MoCo v3, MMC), ADE20K, 160k iterations, as for MAE.
# Hardware: 8 GPUs of 24 GB.
# Time: not measured.
# Metric: 47.3 mIoU for MoCo v3, 47.4 supervised (published by MAE's authors).
_base_ = [
    '../../../_base_/downstream/upernet_vit-b.py',
    '../../../_base_/downstream/segmentation_runtime.py',
    *__import__('mmmoco.apis', fromlist=['_']).package_bases(
        'mmseg::_base_/datasets/ade20k.py',
        'mmseg::_base_/default_runtime.py',
    ),
]
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    decode_head=dict(num_classes=150),
    auxiliary_head=dict(num_classes=150),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)),
)
train_dataloader = dict(batch_size=2)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, end=1500, by_epoch=False),
    dict(type='PolyLR', power=1.0, begin=1500, end=160000, by_epoch=False),
]
train_cfg = dict(
    type='IterBasedTrainLoop', max_iters=160000, val_interval=16000
)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=50, log_metric_by_epoch=False),
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=16000),
)
# The backbone has no final norm here.
custom_hooks = [
    dict(type='mmmoco.VerifyPretrainedHook', allow_unexpected=['ln1.*'])
]
