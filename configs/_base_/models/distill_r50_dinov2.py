# ResNet-50 learns class token and patches of a frozen DINOv2 ViT-B/14.
# init_cfg.checkpoint may be a local copy of the file.
pixels = dict(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
model = dict(
    type='FeatureDistillation',
    backbone=dict(type='mmpretrain.ResNet', depth=50),
    teacher=dict(
        type='Teacher',
        backbone=dict(
            type='mmpretrain.VisionTransformer',
            arch='base',
            img_size=518,
            patch_size=14,
            layer_scale_init_value=1e-5,
            init_cfg=dict(
                type='Pretrained',
                checkpoint='https://mmassets.onedl.ai/mmpretrain/v1.0/dinov2/'
                'vit-base-p14_dinov2-pre_3rdparty_20230426-ba246503.pth',
                prefix='backbone.',
            ),
        ),
        license='apache-2.0',
        **pixels,
    ),
    data_preprocessor=dict(type='ViewAugmentor', **pixels),
)
