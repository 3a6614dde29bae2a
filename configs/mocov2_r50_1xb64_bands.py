# MoCo v2, ResNet-50, a folder of images with any number of bands (ours).
# Hardware: one GPU of 8 GB or more, 64 images.
# Time: not measured.
# Metric: none published.
_base_ = [
    '_base_/models/mocov2_r50.py',
    '_base_/views/bands.py',
    '_base_/datasets/band_folder.py',
    '_base_/schedules/mocov2_200e.py',
    '_base_/default_runtime.py',
]

model = dict(
    # Parts of 16 images take the place of GPUs.
    backbone=dict(norm_cfg=dict(type='SplitBN', num_splits=4)),
    dictionary=dict(size=4096, exclude_same_image=True),
)
crop = dict(type='FastRandomResizedCrop', size=224, scale=(0.2, 1.0))
turn = dict(type='DiscreteRotation')
views = dict(
    view_q=[crop, turn, *_base_.view_1], view_k=[crop, turn, *_base_.view_2]
)
pipeline = [*_base_.load, dict(type='Views', views=views)]
train_dataloader = dict(dataset=dict(pipeline=pipeline))
optim_wrapper = dict(optimizer=dict(lr=0.0075))
auto_scale_lr = dict(base_batch_size=64)
