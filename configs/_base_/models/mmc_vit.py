# MMC on a ViT (arXiv 2308.11448). What the paper's abstract and the digest of
# it leave open stands as in SiT and GMML: heads, temperatures, corruption.
projector = dict(
    type='mmpretrain.NonLinearNeck',
    in_channels=None,  # as wide as the tokens
    out_channels=256,
    num_layers=3,
    with_avg_pool=False,
)
model = dict(
    type='MMC',
    backbone=dict(
        type='mmpretrain.VisionTransformer',
        arch='base',
        img_size=224,
        patch_size=16,
        drop_path_rate=0.1,
    ),
    heads=dict(
        rec=dict(type='ReconstructionHead', in_channels=None, patch_size=16),
        pat=dict(
            type='PatchDistillationHead',
            patch_size=16,
            temperature=0.2,
            projector=dict(
                hid_channels=2048,
                with_last_bn=False,
                norm_cfg=dict(type='LN'),
                **projector,
            ),
        ),
        cls=dict(
            type='CLSContrastHead',
            projector=dict(
                hid_channels=4096,
                with_bias=True,
                with_last_bias=True,
                with_last_bn_affine=False,
                norm_cfg=dict(type='SyncBN'),
                **projector,
            ),
        ),
    ),
    rec_weight=1.0,
    pat_weight=1.0,
    cls_weight=1.0,
    loss=dict(type='InfoNCE', temperature=0.2, scale_by_2tau=True),
    m=0.996,
    m_schedule='cosine',
    data_preprocessor=dict(
        type='MaskedViewAugmentor',
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
        corruption=dict(type='BlockCorruption'),
    ),
)
