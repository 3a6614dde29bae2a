# MMC on a small ViT for scenes of 64 pixels, made for two CPU cores: views and
# corruption are made for the whole batch at once.
view = [
    dict(type='BatchRandomResizedCrop', size=48, scale=(0.3, 1.0)),
    dict(type='BatchBrightnessContrast', brightness=0.4, contrast=0.4),
]
projector = dict(
    type='mmpretrain.NonLinearNeck',
    in_channels=None,  # as wide as the tokens
    hid_channels=128,
    out_channels=64,
    with_avg_pool=False,
)
model = dict(
    type='MMC',
    backbone=dict(
        # Fixed positions: most patches are empty canvas, which L_PAT could
        # not tell apart until learnt positions have grown.
        type='MoCoV3ViT',
        stop_grad_conv1=False,
        arch=dict(
            embed_dims=64,
            num_layers=4,
            num_heads=4,
            feedforward_channels=256,
        ),
        img_size=48,
        patch_size=8,
        in_channels=1,
    ),
    heads=dict(
        rec=dict(
            type='ReconstructionHead',
            in_channels=None,
            patch_size=8,
            channels=1,
            num_layers=1,
        ),
        pat=dict(
            type='PatchDistillationHead',
            patch_size=8,
            projector=dict(
                with_last_bn=False, norm_cfg=dict(type='LN'), **projector
            ),
        ),
        cls=dict(
            type='CLSContrastHead',
            projector=dict(
                with_last_bn_affine=False,
                norm_cfg=dict(type='BN1d'),
                **projector,
            ),
        ),
    ),
    m=0.99,
    data_preprocessor=dict(
        type='MaskedViewAugmentor',
        mean=(110.0,),
        std=(45.0,),
        # A side has 6 patches: 30 % of it would be single patches, no blocks.
        corruption=dict(type='BlockCorruption', align=8, max_side=0.5),
        views=dict(
            view_1=dict(source='image', ops=view),
            view_2=dict(source='image', ops=view),
        ),
    ),
)
