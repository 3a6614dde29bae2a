# A ViT-S/16 learns the tokens of a frozen DINOv2 ViT-B/14 on the same grid.
# init_cfg.checkpoint may be a local copy of the file.
model = dict(
    type='Distillation',
    backbone=dict(
        type='MoCoV3ViT',
        arch='small',
        img_size=96,
        patch_size=16,
        stop_grad_conv1=False,
    ),
    teacher=dict(
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
    data_preprocessor=dict(
        type='ViewAugmentor',
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
    ),
)
