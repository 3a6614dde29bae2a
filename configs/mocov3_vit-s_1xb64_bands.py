# MoCo v3 with a queue, ViT-S/16, a folder of images with any bands (ours).
# Hardware: one GPU of 16 GB or more, 64 images.
# Time: not measured.
# Metric: none published.
_base_ = [
    '_base_/models/mocov3_vit.py',
    '_base_/views/bands.py',
    '_base_/datasets/band_folder.py',
    '_base_/schedules/adamw_100e.py',
    '_base_/default_runtime.py',
]

model = dict(
    backbone=dict(arch='small'),
    neck=dict(norm_cfg=dict(type='BN1d')),
    predictor=dict(norm_cfg=dict(type='BN1d')),
    # 64 images are few negatives.
    dictionary=dict(
        type='Queue', size=4096, feat_dim=256, exclude_same_image=True
    ),
    m_schedule='constant',
)
crop = dict(type='FastRandomResizedCrop', size=224, scale=(0.08, 1.0))
turn = dict(type='DiscreteRotation')
views = dict(
    view_1=[crop, turn, *_base_.view_1], view_2=[crop, turn, *_base_.view_2]
)
pipeline = [*_base_.load, dict(type='Views', views=views)]
train_dataloader = dict(dataset=dict(pipeline=pipeline))
auto_scale_m = dict(base_batch_size=64)
