# MoCo v2 on aerial or satellite RGB: its recipe with views from above (ours).
# Hardware: 8 GPUs of 8 GB or more, 32 images each.
# Time: not measured.
# Metric: none published.
_base_ = [
    '_base_/models/mocov2_r50.py',
    '_base_/views/satellite.py',
    '_base_/datasets/image_folder.py',
    '_base_/schedules/mocov2_200e.py',
    '_base_/default_runtime.py',
]

pipeline = [dict(type='LoadRGB'), dict(type='Views', views=_base_.views)]
train_dataloader = dict(
    dataset=dict(data_root='data/satellite', pipeline=pipeline)
)
