# ViTDet's schedule: 100 epochs of COCO, 64 images an iteration; the learning
# rate falls by 0.7 from each block to the one below it. Norms do not decay.
_base_ = 'detection_90k.py'
decay = 0.7
train_cfg = dict(max_iters=184375)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, end=250),
    dict(milestones=[163889, 177546], **_base_.steps),
]
optim_wrapper = dict(
    optimizer=dict(
        _delete_=True,
        type='AdamW',
        lr=1e-4,
        betas=(0.9, 0.999),
        weight_decay=0.1,
    ),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        custom_keys={
            'backbone.cls_token': dict(lr_mult=decay**13),
            'backbone.pos_embed': dict(lr_mult=decay**13, decay_mult=0.0),
            'backbone.patch_embed': dict(lr_mult=decay**13),
            **{
                f'backbone.layers.{i}.{norm}': dict(
                    lr_mult=decay ** (12 - i), decay_mult=kept
                )
                for i in range(12)
                for norm, kept in (('', 1.0), ('ln', 0.0))
            },
        },
    ),
)
auto_scale_lr = dict(base_batch_size=64)
