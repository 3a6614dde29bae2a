# MoCo v3, ViT-S/16, 13 bands and two seasons of a place (SSL4EO-S12's code).
# Hardware: 4 GPUs, 64 places each.
# Time: not published.
# Metric: 89.9 % mAP fine-tuned on BigEarthNet (published by SSL4EO-S12).
_base_ = [
    '_base_/models/mocov3_vit.py',
    '_base_/views/bands.py',
    '_base_/datasets/ssl4eo_s12.py',
    '_base_/schedules/adamw_100e.py',
    '_base_/default_runtime.py',
]

model = dict(
    backbone=dict(arch='small', in_channels=len(_base_.bands)),
    data_preprocessor=dict(mean=_base_.byte_mean, std=_base_.byte_std),
)
crop = dict(type='FastRandomResizedCrop', size=224, scale=(0.08, 1.0))
views = dict(view_1=[crop, *_base_.view_1], view_2=[crop, *_base_.view_2])
seasons = dict(
    type='SeasonalViews',
    load=_base_.load,
    views=views,
    distinct=False,  # drawn with repetition, as published
)
train_dataloader = dict(dataset=dict(pipeline=[seasons]))
optim_wrapper = dict(optimizer=dict(lr=1.5e-4, weight_decay=0.1))
