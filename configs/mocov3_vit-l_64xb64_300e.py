# MoCo v3, ViT-L/16, 300 epochs of ImageNet (arXiv 2104.02057).
# Hardware: 64 GPUs of 16 GB or more, 64 images each, activations recomputed.
# Time: not published.
# Metric: 77.6 % linear top-1 (published by the authors).
_base_ = 'mocov3_vit-b_64xb64_300e.py'

model = dict(backbone=dict(arch='large', with_cp=True))
# As in OpenMMLab's recipe; the authors released none for ViT-L.
optim_wrapper = dict(clip_grad=dict(max_norm=5.0))
