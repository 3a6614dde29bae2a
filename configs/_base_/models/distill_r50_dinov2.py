# ResNet-50 learns class token and patches of a frozen DINOv2 ViT-B/14.
_base_ = 'distill_vit-s_dinov2.py'
eyes = _base_.model.data_preprocessor
model = dict(
    _delete_=True,
    type='FeatureDistillation',
    backbone=dict(type='mmpretrain.ResNet', depth=50),
    teacher=dict(
        type='Teacher',
        backbone=_base_.model.teacher,
        mean=eyes.mean,
        std=eyes.std,
        license='apache-2.0',
    ),
    data_preprocessor=eyes,
)
