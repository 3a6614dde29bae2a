# Runs of mmpretrain's classifiers that start from pre-trained weights.
_base_ = [
    'mmpretrain::_base_/datasets/imagenet_bs32_pil_resize.py',
    'mmpretrain::_base_/default_runtime.py',
]
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(
    checkpoint=dict(interval=10, max_keep_ckpts=3),
    logger=dict(interval=100),
)
custom_hooks = [dict(type='mmmoco.VerifyPretrainedHook')]
randomness = dict(seed=0)
