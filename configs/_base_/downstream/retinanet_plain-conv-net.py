# A small RetinaNet on the backbone of demo/mocov2_digits: grey images, two
# levels, anchors of 12 to 34 pixels.
_base_ = 'retinanet_r50-fpn.py'
model = dict(
    data_preprocessor=dict(
        mean=[127.5], std=[64.0], bgr_to_rgb=False, pad_size_divisor=8
    ),
    backbone=dict(
        _delete_=True,
        type='mmmoco.PlainConvNet',
        in_channels=1,
        out_indices=(2, 3),
        init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.'),
    ),
    neck=dict(
        in_channels=[64, 128],
        out_channels=64,
        start_level=0,
        add_extra_convs=False,
        num_outs=2,
        norm_cfg=dict(type='BN'),
    ),
    bbox_head=dict(
        num_classes=10,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        anchor_generator=dict(
            octave_base_scale=3, scales_per_octave=2, strides=[4, 8]
        ),
    ),
)
