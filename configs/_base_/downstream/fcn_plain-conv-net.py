# A small FCN on the backbone of demo/mocov2_digits: grey images, the last
# three stages side by side at half the resolution, and a small head: what is
# not in the features cannot be made up for.
_base_ = 'fcn16s_r50.py'
norm_cfg = dict(type='BN')
model = dict(
    data_preprocessor=dict(
        mean=[127.5], std=[64.0], bgr_to_rgb=False, size=(48, 48)
    ),
    backbone=dict(
        _delete_=True,
        type='mmmoco.PlainConvNet',
        in_channels=1,
        out_indices=(1, 2, 3),
        init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.'),
    ),
    decode_head=dict(
        in_channels=[32, 64, 128],
        in_index=[0, 1, 2],
        input_transform='resize_concat',
        channels=64,
        num_convs=1,
        kernel_size=1,
        dilation=1,
        num_classes=11,
        norm_cfg=norm_cfg,
        align_corners=False,
        # Nine pixels of ten are canvas: unweighted, 500 iterations end with
        # nothing else.
        loss_decode=dict(class_weight=[*[1.0] * 10, 0.1]),
    ),
)
