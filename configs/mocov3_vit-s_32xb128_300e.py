# MoCo v3, ViT-S/16 with 12 heads, 300 epochs (arXiv 2104.02057, their code).
# Hardware: 32 GPUs, 128 images each.
# Time: not published.
# Metric: 73.2 % linear top-1 (published by the authors; 72.5 in the paper).
_base_ = 'mocov3_vit-b_64xb64_300e.py'

model = dict(backbone=dict(arch='small'))
train_dataloader = dict(batch_size=128)
