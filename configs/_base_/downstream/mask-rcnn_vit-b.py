# Mask R-CNN on a ViT-B/16 with a pyramid, after ViTDet, for the weights of
# MoCo v3 and MMC. All attention is global; ViTDet's is in windows for most
# blocks, adds relative positions and takes all levels from the last block.
_base_ = 'mask-rcnn_r50-fpn.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.VisionTransformer',
        arch='base',
        img_size=224,
        patch_size=16,
        drop_path_rate=0.1,
        out_type='featmap',
        out_indices=(2, 5, 8, 11),
        final_norm=False,
        init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.'),
    ),
    neck=[
        dict(
            type='mmseg.Feature2Pyramid',
            embed_dim=768,
            rescales=[4, 2, 1, 0.5],
            norm_cfg=_base_.norm_cfg,
        ),
        dict(
            type='FPN',
            in_channels=[768] * 4,
            out_channels=256,
            num_outs=5,
            norm_cfg=_base_.norm_cfg,
        ),
    ],
    rpn_head=dict(num_convs=2),
)
