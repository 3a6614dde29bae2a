# Distillation of DINOv3 ViT-B/16 into a ViT-S/16 (ours).
# Hardware: 8 GPUs of 24 GB or more, 128 images each.
# Time: not measured.
# Metric: none published.
_base_ = 'distill_r50_8xb128_dinov2.py'
# The teacher's file comes from its authors, who ask to accept their licence:
#   mmmoco import dinov3_vitb16.pth checkpoints/dinov3_vit-b.pth
init = dict(
    type='Pretrained',
    checkpoint='checkpoints/dinov3_vit-b.pth',
    prefix='backbone.',
)
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.VisionTransformer',
        arch='deit-small',
        img_size=224,
        patch_size=16,
    ),
    teacher=dict(
        backbone=dict(
            _delete_=True,
            type='TimmBackbone',
            model_name='vit_base_patch16_dinov3_qkvb',
            init_cfg=init,
        ),
        license='dinov3-license',
    ),
)
