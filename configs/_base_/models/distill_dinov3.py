# The teacher, a frozen DINOv3 ViT-B/16. Its file comes from its authors, who
# ask to accept their licence; mmmoco import makes it ours:
#   mmmoco import dinov3_vitb16.pth checkpoints/dinov3_vit-b.pth
pixels = dict(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
model = dict(
    type='FeatureDistillation',
    teacher=dict(
        type='Teacher',
        backbone=dict(
            type='TimmBackbone',
            model_name='vit_base_patch16_dinov3_qkvb',
            init_cfg=dict(
                type='Pretrained',
                checkpoint='checkpoints/dinov3_vit-b.pth',
                prefix='backbone.',
            ),
        ),
        license='dinov3-license',
        **pixels,
    ),
    data_preprocessor=dict(type='ViewAugmentor', **pixels),
)
