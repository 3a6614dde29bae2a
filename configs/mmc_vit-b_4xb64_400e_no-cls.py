# MMC without L_CLS (ablation of arXiv 2308.11448), ViT-B/16, 400 epochs.
# Hardware: 4 GPUs, 64 images each.
# Time: not published.
# Metric: not known to us.
#
# Unknowns of the paper: see mmc_vit-b_4xb64_400e.py.
_base_ = 'mmc_vit-b_4xb64_400e.py'

model = dict(cls_weight=0.0)
