# Distillation of DINOv3 ViT-B/16 into a ConvNeXt-T (ours).
# Hardware: 8 GPUs of 24 GB or more, 128 images each.
# Time: not measured.
# Metric: none published.
_base_ = 'distill_vit-s_8xb128_dinov3.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.ConvNeXt',
        arch='tiny',
        drop_path_rate=0.1,
        gap_before_final_norm=False,  # maps
    ),
)
