# Linear classifier on a frozen ViT: eval mode, class token after the norm.
_base_ = 'linear_r50.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmmoco.MoCoV3ViT',
        arch='base',
        img_size=224,
        patch_size=16,
        stop_grad_conv1=False,  # all of it is frozen
        frozen_stages=12,
        init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.'),
    ),
    neck=None,
    head=dict(in_channels=768),
)
