# RetinaNet, ResNet-50-FPN: synchronised BatchNorm and nothing frozen. The
# head has none: its layers are shared by levels of different statistics.
_base_ = 'mmdet::_base_/models/retinanet_r50_fpn.py'
norm_cfg = dict(type='SyncBN', requires_grad=True)
model = dict(
    backbone=dict(
        frozen_stages=-1,
        norm_cfg=norm_cfg,
        norm_eval=False,
        init_cfg=dict(type='Pretrained', checkpoint='', prefix='backbone.'),
    ),
    neck=dict(norm_cfg=norm_cfg),
)
