# UPerNet on a plain ViT-B/16, with the settings of MAE's segmentation, less
# the relative positions that MAE adds. Rates fall by 0.65 from layer to layer;
# vectors do not decay. mmseg's own constructor for that knows BEiT and MAE
# only, hence the list of names.
_base_ = __import__('mmmoco.apis', fromlist=['_']).package_bases(
    'mmseg::_base_/models/upernet_mae.py'
)
model = dict(
    backbone=dict(
        _delete_=True,
        type='mmpretrain.VisionTransformer',  # mmseg's ignores the prefix
        arch='base',
        img_size=512,
        patch_size=16,
        out_type='featmap',
        out_indices=(3, 5, 7, 11),
        final_norm=False,
        drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.'),
    ),
    neck=dict(embed_dim=768),
    decode_head=dict(in_channels=[768] * 4, channels=768),
    auxiliary_head=dict(in_channels=768),
)
vectors = ['ln', 'attn.qkv.b', 'attn.proj.b', 'ffn.layers.0.0.b']
vectors += ['ffn.layers.1.b']
first = dict(lr_mult=0.65**13)
optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(
        type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05
    ),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys={
            'backbone.cls_token': dict(decay_mult=0.0, **first),
            'backbone.pos_embed': dict(decay_mult=0.0, **first),
            'backbone.patch_embed.projection.b': dict(decay_mult=0.0, **first),
            'backbone.patch_embed.': first,
            **{
                f'backbone.layers.{i}.': dict(lr_mult=0.65 ** (12 - i))
                for i in range(12)
            },
            **{
                f'backbone.layers.{i}.{vector}': dict(
                    lr_mult=0.65 ** (12 - i), decay_mult=0.0
                )
                for i in range(12)
                for vector in vectors
            },
        },
    ),
)
