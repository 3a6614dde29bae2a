# MoCo v3 with a queue, ViT-B/16, on from released weights: --init CKPT (ours).
# Hardware: one GPU of 24 GB or more, 64 images.
# Time: not measured.
# Metric: none published.
_base_ = [
    '_base_/models/mocov3_vit.py',
    '_base_/views/mocov3.py',
    '_base_/schedules/adapt_50e.py',
]

bn = dict(norm_cfg=dict(type='BN1d'))
model = dict(
    backbone=dict(
        _delete_=True,
        # That of DINO, timm and mmpretrain; of MoCo v3 itself, MoCoV3ViT.
        type='mmpretrain.VisionTransformer',
        arch='base',
        img_size=224,
        patch_size=16,
        init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.'),
    ),
    neck=bn,
    predictor=bn,
    # 64 images are few negatives.
    dictionary=dict(
        type='Queue', size=4096, feat_dim=256, exclude_same_image=True
    ),
    m=0.996,
)
pipeline = [dict(type='LoadRGB'), dict(type='Views', views=_base_.views)]
train_dataloader = dict(batch_size=64, dataset=dict(pipeline=pipeline))
# A tenth of what a training from the beginning takes.
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=1.25e-5, weight_decay=0.04)
)
auto_scale_lr = dict(base_batch_size=64, enable=False)
