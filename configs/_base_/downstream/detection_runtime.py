# Runs of mmdet's detectors that start from pre-trained weights, counted in
# iterations. The second import is the extra norm of the C4 heads.
_base_ = 'mmdet::_base_/default_runtime.py'
custom_imports = dict(
    imports=['mmmoco.engine', 'mmpretrain.models.utils.res_layer_extra_norm'],
    allow_failed_imports=False,
)
custom_hooks = [dict(type='mmmoco.VerifyPretrainedHook')]
default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=5000, max_keep_ckpts=3)
)
log_processor = dict(by_epoch=False)
