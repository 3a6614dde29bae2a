# MoCo v3, ViT-S/16, batch 1024 on one machine (arXiv 2104.02057, their code).
# Hardware: 8 GPUs, 128 images each.
# Time: not published.
# Metric: not published for this batch (73.2 % linear top-1 at batch 4096).
_base_ = 'mocov3_vit-s_32xb128_300e.py'
auto_scale_m = dict(base_batch_size=1024)
