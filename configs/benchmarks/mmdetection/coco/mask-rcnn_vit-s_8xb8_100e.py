# Mask R-CNN, ViT-S/16 of MoCo v3 (12 heads), COCO, 100 epochs, after ViTDet.
# Hardware: 8 GPUs of 40 GB.
# Time: not measured.
# Metric: none published.
_base_ = [
    '../../../_base_/downstream/mask-rcnn_vit-s.py',
    '../../../_base_/downstream/coco_large_jitter.py',
    '../../../_base_/downstream/detection_vit.py',
    '../../../_base_/downstream/detection_runtime.py',
]
train_dataloader = dict(batch_size=8, num_workers=8)
# The final norm is not used.
custom_hooks = [
    dict(type='mmmoco.VerifyPretrainedHook', allow_unexpected=['ln1.*'])
]
